package fluid

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fluid-sd/fluid/plugin/answer"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/lastgood"
	"github.com/fluid-sd/fluid/plugin/record"
	"github.com/fluid-sd/fluid/plugin/table"
)

// freshFor is how long answers count as fresh after a word from outside.
const freshFor = 10 * time.Second

// The states of an engine's data.
const (
	unsynced int32 = iota // nothing is known yet
	fresh                 // up to date
	stale                 // the last known good
)

// engine holds what this process knows and keeps it up to date. There is one
// in a process, shared by all server blocks and kept across reloads; see
// lessor. Queries read its tables and its state, never its mutex.
type engine struct {
	options process // as of the start; of these only the immutable ones count
	client  *feed.Client
	member  *member // nil without gossip; set before anything runs

	services *table.Map[catalog.Service]
	nodes    *table.Map[record.Node]
	reverse  reverseIndex
	answers  *table.Answers[kept]
	denials  *table.Answers[kept]

	state   atomic.Int32
	news    atomic.Int64                    // when the last word came, in nanoseconds since start
	epoch   atomic.Uint64                   // rises after every change
	refused atomic.Uint64                   // frames of the relay that the catalog would not have
	serial  atomic.Uint32                   // of the zones' SOA records
	visible atomic.Pointer[record.Position] // what queries see
	synced  chan struct{}                   // closed when state leaves unsynced
	start   time.Time                       // of news; monotonic
	wall    func() time.Time

	mu        sync.Mutex // guards what follows; writers only
	catalog   *catalog.Catalog
	head      lastgood.Head
	file      *lastgood.File                   // nil without snapshot
	path      string                           // of file
	fromDisk  bool                             // the data was read from the file and not confirmed
	volatile  bool                             // the file could not be brought up to date
	unsaved   *record.Position                 // what the file holds, where the mesh went on from there; else nil
	kept      map[record.OriginID]catalog.Head // gossip that the file holds
	rewritten time.Time                        // when that was tried last
	maxTTL    time.Duration                    // largest TTL of any record ever answered
	dirty     bool                             // the exported zone changed since serial did
	bumped    time.Time                        // when serial last rose
	advanced  time.Time                        // when the catalog was last told the time
	guarded   []string                         // services in whose answers the guard keeps instances; sorted
	zones     map[string]*served
	lastZone  uint64 // id of the zone made last
	notify    map[*notifier]bool

	stacks *ballast
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// kept is an answer in the cache, with what it takes to see that it is out of
// date.
type kept struct {
	cell  *table.Cell[catalog.Service] // FromService
	epoch uint64                       // FromAll
	answer.Answer
}

func (e *engine) current(k *kept) bool {
	switch k.Source {
	case answer.FromService:
		return k.cell.Load() == k.Service
	case answer.FromAll:
		return e.epoch.Load() == k.epoch
	}
	return true
}

// newEngine makes an engine and loads the snapshot, if there is one. It starts
// nothing; see run.
func newEngine(p process) *engine {
	e := &engine{
		options: p, services: table.NewMap[catalog.Service](0), nodes: table.NewMap[record.Node](0),
		synced: make(chan struct{}), start: time.Now(), wall: time.Now,
		catalog: catalog.New(), kept: map[record.OriginID]catalog.Head{}, zones: map[string]*served{}, notify: map[*notifier]bool{},
		stacks: newBallast(),
	}
	e.answers, e.denials = table.NewAnswers(p.Capacity, e.current), table.NewAnswers(p.Denial, e.current)
	e.head.Cluster = p.Cluster
	e.useFile(p.Snapshot)
	if e.head.Member == "" {
		e.head.Member = memberID(p.GossipNode)
	}
	e.mu.Lock()
	e.dirty = true
	e.bump()
	e.mu.Unlock()
	return e
}

// run joins the mesh, if the server is to be in one, and starts the feed client
// and the clock. Without a mesh the agent relays what it knows of gossip.
func (e *engine) run() error {
	conf := feed.ClientConfig{
		Socket: e.options.Agent, MemberID: e.head.Member, Name: e.options.GossipNode, Version: record.Version,
		Implementation: feed.RelayImplementation, Relay: true,
	}
	if e.options.meshed() {
		conf.Implementation, conf.Relay = e.options.Gossip, false
	}
	client, err := feed.NewClient(conf, sink{e})
	if err != nil {
		return err
	}
	e.client = client
	if err := e.openMember(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.done.Go(func() { e.guard("feed", func() { _ = client.Run(ctx) }) })
	e.done.Go(func() { e.tick(ctx) })
	e.done.Go(func() { e.stacks.run(ctx) })
	if e.member != nil {
		e.done.Go(func() { e.guard("search for the mesh", func() { e.member.seek(ctx) }) })
		e.done.Go(func() { e.guard("word to the mesh", func() { e.member.tell(ctx) }) })
	}
	return nil
}

// guard keeps a panic from taking the DNS server down.
func (e *engine) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			log.Errorf("%s panicked, answers go on from memory: %v", what, p)
		}
	}()
	f()
}

// tick looks at the age of the data and moves the serial, until ctx ends. A
// panic costs one tick.
func (e *engine) tick(ctx context.Context) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		e.guard("clock", e.beat)
	}
}

// beat is one tick of the clock.
func (e *engine) beat() {
	e.stacks.adjust()
	if e.member != nil {
		e.member.tick(e.wall())
	}
	if e.state.Load() == fresh && e.age() > freshFor && e.state.CompareAndSwap(fresh, stale) {
		log.Warningf("no news for %v: answering from memory, marked stale", freshFor)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.wall(); now.Sub(e.advanced) >= time.Second {
		e.advanced = now
		e.publish(e.catalog.Advance(now.UnixMilli()))
		e.tellGuarded()
	}
	e.bump()
}

// tellGuarded says of which services the guard begins or ends to keep lost
// instances in the answer. Called with mu held.
func (e *engine) tellGuarded() {
	now := e.catalog.Guarded()
	if began := without(now, e.guarded); len(began) > 0 {
		log.Warningf("most instances were lost at once, the last known good stay in the answer: %s", some(began))
	}
	if ended := without(e.guarded, now); len(ended) > 0 {
		log.Infof("no lost instances are in the answer any more: %s", some(ended))
	}
	e.guarded = now
}

// without returns the names, sorted, that are not among others, sorted as well.
func without(names, others []string) (out []string) {
	for _, name := range names {
		if _, found := slices.BinarySearch(others, name); !found {
			out = append(out, name)
		}
	}
	return out
}

// some names a few of many services.
func some(names []string) string {
	const most = 5
	text := strings.Join(names[:min(most, len(names))], ", ")
	if n := len(names) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// age returns how long ago the last word came from outside.
func (e *engine) age() time.Duration {
	return time.Since(e.start) - time.Duration(e.news.Load())
}

// confirm notes a word from outside that the data is up to date. Called with
// mu held.
func (e *engine) confirm() {
	e.news.Store(int64(time.Since(e.start)))
	e.fromDisk = false
	if e.state.Load() == unsynced && e.member != nil && !e.member.complete() {
		return // the member asks again
	}
	if was := e.state.Swap(fresh); was != fresh {
		e.report(was)
	}
}

// report tells of a change from a state to fresh or, after a load from disk,
// stale. Called with mu held.
func (e *engine) report(was int32) {
	if was == unsynced {
		close(e.synced)
	}
	log.Infof("serving %d services at position %v", e.services.Len(), e.catalog.Position())
}

// close leaves the mesh and ends the engine's goroutines. What it knows can
// still be read.
func (e *engine) close() {
	if e.cancel != nil {
		e.cancel()
	}
	if e.member != nil {
		e.member.leave()
	}
	e.mu.Lock()
	e.follow(nil)
	e.mu.Unlock()
	e.done.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.file != nil {
		e.keepGossip()
		e.flush()
		if err := e.file.Close(); err != nil {
			log.Warningf("snapshot: %v", err)
		}
		e.file = nil
	}
}

// publish makes the changes of the catalog visible to queries. Called with mu
// held.
func (e *engine) publish(ch catalog.Changes) {
	defer func() {
		pos := e.catalog.Position()
		e.visible.Store(&pos)
		if e.member != nil {
			e.member.poke()
		}
	}()
	if ch.Empty() {
		return
	}
	if ch.All {
		live := make(map[string]bool)
		for name := range e.catalog.Services() {
			live[name] = true
			e.show(name)
		}
		for name := range e.services.All() {
			if !live[name] {
				e.show(name)
			}
		}
		clear(live)
		for name := range e.catalog.Nodes() {
			live[name] = true
			e.showNode(name)
		}
		for name := range e.nodes.All() {
			if !live[name] {
				e.showNode(name)
			}
		}
	}
	for _, name := range ch.Services {
		e.show(name)
	}
	for _, name := range ch.Nodes {
		e.showNode(name)
	}
	e.epoch.Add(1)
	e.dirty = true
	e.bump()
}

func (e *engine) show(name string) {
	var old *catalog.Service
	now, ok := e.catalog.View(name)
	if ok {
		old = e.services.Store(now.Name, now)
		for i := range now.Instances {
			if sum, err := record.Summarize(now.Instances[i].Value); err == nil {
				e.maxTTL = max(e.maxTTL, cmp.Or(sum.TTL, now.Config.TTL))
			}
		}
	} else {
		now = nil
		old = e.services.Delete(name)
	}
	e.reverse.service(old, now)
}

func (e *engine) showNode(name string) {
	var old *record.Node
	now, ok := e.catalog.Node(name)
	if ok {
		old = e.nodes.Store(name, &now)
		e.reverse.node(old, &now)
		return
	}
	old = e.nodes.Delete(name)
	e.reverse.node(old, nil)
}

// bump moves the zones' serial if they changed, once a second at most. Called
// with mu held.
func (e *engine) bump() {
	now := e.wall()
	if !e.dirty || now.Sub(e.bumped) < time.Second {
		return
	}
	e.dirty, e.bumped = false, now
	e.head.Serial = max(e.head.Serial+1, uint32(now.Unix()))
	e.serial.Store(e.head.Serial)
	if e.file != nil {
		_ = e.file.AppendSerial(e.head.Serial) // else the next Replace writes it
	}
	for _, z := range e.zones {
		z.renew(e.head.Serial)
	}
	for n := range e.notify {
		n.wake()
	}
}

// Service implements answer.Data.
func (e *engine) Service(name string) *catalog.Service { return e.services.Lookup(name) }

// Services implements answer.Data.
func (e *engine) Services() iter.Seq[*catalog.Service] {
	return func(yield func(*catalog.Service) bool) {
		for _, s := range e.services.All() {
			if !yield(s) {
				return
			}
		}
	}
}

// Node implements answer.Data.
func (e *engine) Node(name string) *record.Node { return e.nodes.Lookup(name) }

// Nodes implements answer.Data.
func (e *engine) Nodes() iter.Seq[*record.Node] {
	return func(yield func(*record.Node) bool) {
		for _, n := range e.nodes.All() {
			if !yield(n) {
				return
			}
		}
	}
}

// Owner implements answer.Data.
func (e *engine) Owner(a netip.Addr) answer.Owner { return e.reverse.owner(a) }

// Below implements answer.Data.
func (e *engine) Below(p netip.Prefix) bool { return e.reverse.below(p) }

var _ answer.Data = (*engine)(nil)
