package check

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Key names an instance.
type Key struct{ Service, ID string }

// Config says what becomes of results.
type Config struct {
	// Report is told the status of an instance when it changes, and the reason:
	// once at a time for each instance, and never after its checks ended. It may
	// take as long as a write to disk; it must not call the Runner.
	Report func(Key, record.Status, string)
	// Remove is told of an instance that was critical for too long, beside
	// reports on it. ctx ends with the checks. It may call Status.
	Remove func(ctx context.Context, key Key)
	// Probe asks an instance how it is; nil: over the network. It returns when
	// ctx ends.
	Probe func(ctx context.Context, s *Spec) (record.Status, string)
}

// Runner runs checks until it is closed.
type Runner struct {
	cfg Config

	mu      sync.Mutex // guards what follows
	targets map[Key]*target
	closed  bool
	wg      sync.WaitGroup
}

// New returns a runner without checks.
func New(cfg Config) *Runner {
	if cfg.Probe == nil {
		cfg.Probe = probe
	}
	return &Runner{cfg: cfg, targets: map[Key]*target{}}
}

// target is one instance with its checks.
type target struct {
	key   Key
	specs []Spec
	ctx   context.Context // ends with the checks
	stop  context.CancelFunc
	beats []chan chan<- struct{} // of the TTL checks, closed in answer; nil for others

	mu     sync.Mutex // one result at a time; guards what follows
	states []state
	told   record.Status
	reason string
	doomed *time.Timer // removes it; nil unless it is critical
}

// state is what one check has found.
type state struct {
	status record.Status
	reason string
	next   record.Status // what the latest probes say, count times in a row
	count  int
}

// Put replaces the checks of an instance. now is the status it is known to
// have; it stays until a check says otherwise. The same checks again go on as
// they are. No specs end the checks. It waits for a report under way.
func (r *Runner) Put(key Key, specs []Spec, now record.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.targets[key]
	if old != nil && slices.Equal(old.specs, specs) {
		return
	}
	if old != nil {
		old.end()
		delete(r.targets, key)
	}
	if len(specs) == 0 || r.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &target{
		key: key, specs: slices.Clone(specs), ctx: ctx, stop: cancel, told: now,
		beats: make([]chan chan<- struct{}, len(specs)), states: make([]state, len(specs)),
	}
	r.targets[key] = t
	for i := range t.specs {
		t.states[i] = state{status: now, next: now}
		if t.specs[i].TTL != 0 {
			t.beats[i] = make(chan chan<- struct{})
			if now == Initial(specs) {
				t.states[i] = state{}
			}
		}
	}
	for i := range t.specs {
		r.wg.Go(func() {
			if t.beats[i] != nil {
				r.listen(t, i)
			} else {
				r.probes(t, i)
			}
		})
	}
}

// Status returns the status that the checks of an instance give it, with the
// reason, or false if it has none.
func (r *Runner) Status(key Key) (record.Status, string, bool) {
	r.mu.Lock()
	t := r.targets[key]
	r.mu.Unlock()
	if t == nil {
		return 0, "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.told, t.reason, true
}

// Same reports whether an instance has exactly these checks.
func (r *Runner) Same(key Key, specs []Spec) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.targets[key]
	return t != nil && slices.Equal(t.specs, specs)
}

// Heartbeat renews the TTL checks of an instance, and reports whether it has
// any. What changes is reported before it returns.
func (r *Runner) Heartbeat(key Key) bool {
	r.mu.Lock()
	t := r.targets[key]
	r.mu.Unlock()
	if t == nil {
		return false
	}
	found := false
	for _, beat := range t.beats {
		if beat == nil {
			continue
		}
		done := make(chan struct{})
		select {
		case beat <- done:
			<-done
			found = true
		case <-t.ctx.Done():
			return false
		}
	}
	return found
}

// Close ends all checks and waits for callbacks under way.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	for _, t := range r.targets {
		t.end()
	}
	clear(r.targets)
	r.mu.Unlock()
	r.wg.Wait()
}

// probes probes at each interval until ctx ends.
func (r *Runner) probes(t *target, i int) {
	ctx, s := t.ctx, &t.specs[i]
	tick := time.NewTicker(s.Interval)
	defer tick.Stop()
	for {
		status, reason := r.probe(ctx, s)
		if ctx.Err() != nil {
			return
		}
		r.result(t, i, status, reason)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// probe probes once. What an instance answers must not end the agent.
func (r *Runner) probe(ctx context.Context, s *Spec) (status record.Status, reason string) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			status, reason = record.Critical, fmt.Sprintf("the check failed: %v", p)
		}
	}()
	return r.cfg.Probe(ctx, s)
}

// listen waits for heartbeats until ctx ends.
func (r *Runner) listen(t *target, i int) {
	ttl := t.specs[i].TTL
	timer := time.NewTimer(ttl)
	defer timer.Stop()
	for {
		select {
		case done := <-t.beats[i]:
			timer.Reset(ttl)
			r.result(t, i, record.Passing, "heartbeat")
			close(done)
		case <-timer.C:
			r.result(t, i, record.Critical, "no heartbeat within "+ttl.String())
		case <-t.ctx.Done():
			return
		}
	}
}

// end ends the checks of a target, once a report under way is through. It is
// called with the Runner's mu held.
func (t *target) end() {
	t.stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.doomed != nil {
		t.doomed.Stop()
		t.doomed = nil
	}
}

// result takes in what one check found.
func (r *Runner) result(t *target, i int, status record.Status, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	s, spec := &t.states[i], &t.specs[i]
	if s.next != status {
		s.next, s.count = status, 0
	}
	s.count++
	need := spec.Failures
	if status == record.Passing {
		need = spec.Successes
	}
	if s.count < need {
		return
	}
	s.status, s.reason = status, reason
	worst := 0
	for j := range t.states {
		if t.states[j].status > t.states[worst].status {
			worst = j
		}
	}
	t.reason = t.states[worst].reason
	r.doom(t, t.states[worst].status)
	if t.states[worst].status != t.told {
		t.told = t.states[worst].status
		r.cfg.Report(t.key, t.told, t.reason)
	}
}

// doom starts or stops the time after which a critical instance is removed.
func (r *Runner) doom(t *target, status record.Status) {
	after := time.Duration(0)
	for i := range t.specs {
		if d := t.specs[i].DeregisterAfter; d != 0 && (after == 0 || d < after) {
			after = d
		}
	}
	switch {
	case status != record.Critical && t.doomed != nil:
		t.doomed.Stop()
		t.doomed = nil
	case status == record.Critical && t.doomed == nil && after != 0:
		t.doomed = time.AfterFunc(after, func() { r.remove(t) })
	}
}

// remove tells of a target that was critical for too long.
func (r *Runner) remove(t *target) {
	r.mu.Lock()
	if t.ctx.Err() != nil { // as it is when Close waits
		r.mu.Unlock()
		return
	}
	r.wg.Add(1)
	r.mu.Unlock()
	defer r.wg.Done()
	t.mu.Lock()
	due := t.doomed != nil
	t.mu.Unlock()
	if due {
		r.cfg.Remove(t.ctx, t.key)
	}
}
