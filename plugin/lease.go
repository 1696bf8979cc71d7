package fluid

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/caddy"
)

// linger is how long an engine outlives its last user, so that a plugin that
// one reload removes and the next brings back finds everything as it was.
const linger = 5 * time.Second

// generation is one CoreDNS instance, which is one reading of the Corefile, as
// far as this plugin is concerned.
type generation struct {
	settings settings // filled by setup
	blocks   []*block // filled by setup
	order    uint64   // of acquiring
}

// generationKey is where a CoreDNS instance keeps its generation.
type generationKey struct{}

// lessor lends the process's engine to generations.
//
// CoreDNS starts a new instance before it stops the old one, discards a new
// one that failed to start without another word, and can leave one that
// panicked in its list for ever. Counting users would go wrong in each of
// these; so a lease is held by a generation, and is void once CoreDNS no
// longer lists an instance with that generation.
type lessor struct {
	mu     sync.Mutex // guards what follows
	engine *engine    // nil if there is none
	held   map[*generation]bool
	last   uint64
	linger *time.Timer
}

// leases lends the engine of this process.
var leases lessor

// running returns the engine, nil if there is none.
func (l *lessor) running() *engine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.engine
}

// check reports settings that the running engine cannot take on.
func (l *lessor) check(s settings) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	if l.engine == nil || len(l.held) == 0 {
		return nil
	}
	given := l.engine.options
	for _, set := range s {
		set.apply(&given)
	}
	return refuse(l.engine.options.changed(&given))
}

func refuse(changed []string) error {
	if len(changed) == 0 {
		return nil
	}
	return fmt.Errorf("%s cannot change while CoreDNS runs: restart it, or undo the change", strings.Join(changed, " and "))
}

// acquire lends the engine to a generation, starting one if there is none. A
// generation that holds a lease gets the same again.
func (l *lessor) acquire(g *generation) (*engine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[g] {
		return l.engine, nil
	}
	l.sweep()
	p := g.settings.process()
	if l.engine != nil {
		if changed := l.engine.options.changed(&p); len(changed) > 0 {
			if len(l.held) > 0 {
				return nil, refuse(changed)
			}
			l.shut() // it only lingered
		}
	}
	if l.engine == nil {
		e := newEngine(p)
		if err := e.run(); err != nil {
			e.close()
			return nil, err
		}
		l.engine = e
	}
	if l.held == nil {
		l.held = map[*generation]bool{}
	}
	l.last++
	g.order = l.last
	l.held[g] = true
	l.settle()
	return l.engine, nil
}

// release gives a lease back. It is fine to release what is not held.
func (l *lessor) release(g *generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, g)
	l.settle()
}

// finish releases a lease at the end of the process, without lingering.
func (l *lessor) finish(g *generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, g)
	l.sweep()
	if len(l.held) == 0 {
		l.shut()
		return
	}
	l.settle()
}

// reclaim voids the leases of instances that CoreDNS discarded.
func (l *lessor) reclaim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	l.settle()
}

// sweep drops the leases of generations that no instance has. Called with mu
// held.
func (l *lessor) sweep() {
	live := map[*generation]bool{}
	for _, inst := range caddy.Instances() {
		inst.StorageMu.RLock()
		if g, ok := inst.Storage[generationKey{}].(*generation); ok {
			live[g] = true
		}
		inst.StorageMu.RUnlock()
	}
	for g := range l.held {
		if !live[g] {
			delete(l.held, g)
		}
	}
}

// settle makes the engine follow the newest generation that holds a lease, and
// starts or stops the clock that ends it. Called with mu held.
func (l *lessor) settle() {
	if l.engine == nil {
		return
	}
	if len(l.held) == 0 {
		if l.linger == nil {
			l.linger = time.AfterFunc(linger, l.expire)
		}
		return
	}
	if l.linger != nil {
		l.linger.Stop()
		l.linger = nil
	}
	gens := make([]*generation, 0, len(l.held))
	for g := range l.held {
		gens = append(gens, g)
	}
	slices.SortFunc(gens, func(a, b *generation) int { return cmp.Compare(a.order, b.order) })
	var blocks []*block
	for _, g := range gens {
		blocks = append(blocks, g.blocks...)
	}
	l.engine.configure(gens[len(gens)-1].settings.process(), blocks)
}

// expire ends the engine if nobody came back for it.
func (l *lessor) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	if len(l.held) == 0 {
		l.shut()
	}
}

// shut ends the engine. The goroutines that it waits for never call back
// here. Called with mu held.
func (l *lessor) shut() {
	if l.linger != nil {
		l.linger.Stop()
		l.linger = nil
	}
	if l.engine != nil {
		l.engine.close()
		l.engine = nil
	}
}

// protect turns a panic into an error, because CoreDNS takes an instance that
// panicked while starting for one that runs.
func protect(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = errors.Join(err, fmt.Errorf("panic: %v", p))
			}
		}()
		return f()
	}
}
