package catalog

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/fluid-sd/fluid/plugin/record"
)

// The model checker runs random schedules of a small mesh: loss, duplication,
// reordering, stale replicas, restarts with and without disk, cloned identity,
// generation changes, collection at random times. At the end everything is
// delivered and every member must hold the same, correct state.
//
//	go test ./plugin/catalog -run TestSchedules -schedules 200000 -seed 1
var (
	schedules = flag.Int("schedules", 400, "random schedules to run")
	firstSeed = flag.Uint64("seed", 1, "seed of the first schedule")
)

const (
	schedAgents  = 3
	schedReaders = 2
)

// schedule is one run.
type schedule struct {
	rng      *rand.Rand
	mutation mutation
	now      int64
	agents   []*agent
	readers  []*Catalog
	flying   [][]byte          // deltas on their way; may come late, twice or never
	raft     []record.Entry    // the committed log
	gen      uint64            // committed generation
	ids      int               // origins handed out
	killed   map[string]uint64 // instance → index of its last kill
	gone     []*agent          // identities whose disk is lost, to be reaped
	log      []string
}

// agent is a member that owns an origin, with what its disk holds.
type agent struct {
	c     *Catalog
	ow    *Owner
	id    record.OriginID
	epoch uint64
	disk  map[record.Key]Item // what was acknowledged
}

func newSchedule(seed uint64, m mutation) *schedule {
	s := &schedule{rng: rand.New(rand.NewPCG(seed, 7)), mutation: m, now: 1_000_000, gen: 1, killed: map[string]uint64{}}
	for range schedAgents {
		a := &agent{disk: map[record.Key]Item{}}
		s.agents = append(s.agents, a)
		s.start(a, true)
	}
	for range schedReaders {
		s.readers = append(s.readers, s.empty())
	}
	return s
}

func (s *schedule) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *schedule) empty() *Catalog {
	c := New()
	c.mutation = s.mutation
	return c
}

// start begins a new process of an agent; with a new identity if its disk is
// lost.
func (s *schedule) start(a *agent, newDisk bool) {
	if newDisk {
		if a.c != nil {
			s.gone = append(s.gone, &agent{id: a.id, epoch: a.epoch})
		}
		s.ids++
		a.id = record.OriginID{byte(s.ids), byte(s.ids >> 8), 1}
		a.epoch, a.disk = 0, map[record.Key]Item{}
	}
	a.epoch = max(a.epoch+1, uint64(s.now))
	a.c = s.empty()
	s.commit(a.c)
	var items []Item
	for _, it := range a.disk {
		items = append(items, it)
	}
	slices.SortFunc(items, func(x, y Item) int { return strings.Compare(string(x.Key), string(y.Key)) })
	ow, _, err := a.c.Own(s.now, a.id, a.epoch, s.rng.Uint64()|1, items)
	if err != nil {
		panic(err)
	}
	a.ow = ow
	s.note("start %v epoch %d with %d items", a.id[0], a.epoch, len(items))
}

// commit brings the committed slot of a catalog to the end of the log, or to
// some point before it.
func (s *schedule) commit(c *Catalog) {
	pos := record.Position{Generation: s.gen, Index: uint64(len(s.raft))}
	if c.Position().Before(pos) {
		if _, err := c.Replace(pos, slices.Values(s.raft)); err != nil {
			panic(err)
		}
	}
}

func (s *schedule) all() []*Catalog {
	out := slices.Clone(s.readers)
	for _, a := range s.agents {
		out = append(out, a.c)
	}
	return out
}

func (s *schedule) send(d *Delta) { s.flying = append(s.flying, d.Append(nil)) }

func (s *schedule) deliver(c *Catalog, frame []byte) {
	d, err := DecodeDelta(frame)
	if err != nil {
		panic(err)
	}
	_, _ = c.Merge(s.now, &d) // a reaped epoch is refused; that is no fault
}

func (s *schedule) pull(to, from *Catalog, partial bool) {
	for _, h := range from.Heads() {
		if w, ok := to.Missing(h); ok {
			for _, d := range from.Pull(w, 1) {
				if partial && s.rng.IntN(3) == 0 {
					continue
				}
				s.deliver(to, d.Append(nil))
			}
		}
	}
}

// step does one random thing.
func (s *schedule) step() {
	s.now += int64(s.rng.IntN(4)) * int64(s.rng.IntN(400_000))
	a := s.agents[s.rng.IntN(len(s.agents))]
	cats := s.all()
	c := cats[s.rng.IntN(len(cats))]
	switch n := s.rng.IntN(100); {
	case n < 30:
		s.write(a)
	case n < 60 && len(s.flying) > 0:
		s.deliver(c, s.flying[s.rng.IntN(len(s.flying))]) // any order, again and again
	case n < 66 && len(s.flying) > 0:
		s.flying = slices.Delete(s.flying, 0, 1) // lost
	case n < 76 && (s.mutation != 0 || s.rng.IntN(4) > 0):
		s.pull(c, cats[s.rng.IntN(len(cats))], true)
	case n < 76:
		s.doubt(c, cats[s.rng.IntN(len(cats))])
	case n < 84:
		c.Collect(s.now)
	case n < 88:
		s.commit(c)
	case n < 91:
		s.start(a, false)
	case n < 93:
		s.start(a, true)
	case n < 95:
		i := s.rng.IntN(len(s.readers))
		s.readers[i] = s.empty() // a reader starts from nothing
	case n < 98:
		s.kill()
	case n < 99:
		s.gen++ // restored: everything committed is there, in a new generation
		s.note("generation %d", s.gen)
	default:
		s.clone(a)
	}
}

// doubt lets a member ask for what it has, as if that were not right. The
// answer comes at any time, or never.
func (s *schedule) doubt(to, from *Catalog) {
	heads := to.Heads()
	if len(heads) == 0 {
		return
	}
	id := heads[s.rng.IntN(len(heads))].Origin
	if w, ok := to.Doubt(id); ok {
		for _, d := range from.Pull(w, 1) {
			s.send(&d)
		}
		if s.rng.IntN(3) == 0 {
			to.Trust(id)
		}
	}
}

// write registers, updates or withdraws something at an agent.
func (s *schedule) write(a *agent) {
	id := string(rune('a' + s.rng.IntN(3)))
	in := &record.Instance{Service: "web", ID: id, Weight: uint16(s.rng.IntN(1000)), Addrs: schedAddr}
	var it Item
	var err error
	changed := true
	switch n := s.rng.IntN(10); {
	case n < 5:
		it, changed, err = a.ow.Register(s.now, in)
	case n < 6:
		it, changed, err = a.ow.Update(s.now, in)
	default:
		it, err = a.ow.Withdraw(s.now, record.InstanceKey("web", id))
	}
	if err != nil || !changed {
		return
	}
	s.publish(a, it)
}

var schedAddr = []netip.Addr{netip.MustParseAddr("10.0.0.9")}

func (s *schedule) publish(a *agent, it Item) {
	if it.Deleted {
		delete(a.disk, it.Key)
	} else {
		a.disk[it.Key] = it
	}
	d, _ := a.ow.Commit(s.now, it)
	s.note("origin %v seq %d: %s deleted %v", a.id[0], d.To, it.Key, it.Deleted)
	s.send(&d)
}

// kill commits the forced removal of what some agent holds.
func (s *schedule) kill() {
	a := s.agents[s.rng.IntN(len(s.agents))]
	id := string(rune('a' + s.rng.IntN(3)))
	index := uint64(len(s.raft)) + 1
	f := record.Fence{Kind: record.FenceKill, Origin: a.id, Service: "web", Instance: id, At: record.Position{Generation: s.gen, Index: index}}
	s.raft = append(s.raft, record.Entry{Key: f.Key(), Value: string(f.Append(nil)), Index: index})
	s.killed[a.id.String()+id] = index
	s.note("kill %s of %v at %d", id, a.id[0], index)
}

// clone lets a second process use an agent's identity from an old disk, as a
// copied virtual machine does. The agent takes a new identity as soon as it
// hears of it, and asks for the old one to be reaped.
func (s *schedule) clone(a *agent) {
	other := New()
	ow, _, err := other.Own(s.now, a.id, a.epoch, s.rng.Uint64()|1, nil)
	if err != nil {
		return // reaped already
	}
	in := &record.Instance{Service: "web", ID: "clone", Weight: 1, Addrs: schedAddr}
	it, _, err := ow.Register(s.now, in)
	if err != nil {
		return
	}
	d, _ := ow.Commit(s.now, it)
	s.send(&d)
	if m, err := a.c.Merge(s.now, &d); err != nil || !m.Cloned {
		return
	}
	s.note("clone of %v", a.id[0])
	s.reap(a.id, max(a.epoch, uint64(s.now))+1)
	items := a.disk
	s.start(a, true)
	for _, k := range slices.Sorted(mapKeys(items)) {
		it := items[k]
		it.Seq = 0
		s.publish(a, it)
	}
}

// reap commits that an origin is over.
func (s *schedule) reap(id record.OriginID, epoch uint64) {
	index := uint64(len(s.raft)) + 1
	f := record.Fence{Kind: record.FenceReap, Origin: id, Epoch: epoch}
	s.raft = append(s.raft, record.Entry{Key: f.Key(), Value: string(f.Append(nil)), Index: index})
	s.note("reap %v to %d", id[0], epoch)
}

func mapKeys[V any](m map[record.Key]V) func(func(record.Key) bool) {
	return func(yield func(record.Key) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// finish delivers everything and lets owners meet their obligations, then
// compares.
func (s *schedule) finish() error {
	for _, frame := range s.flying { // the latest come last; late ones may come at any time
		for _, c := range s.all() {
			s.deliver(c, frame)
		}
	}
	for _, a := range s.gone { // dead for 72 hours
		s.reap(a.id, a.epoch+1)
	}
	for range 4 {
		for _, c := range s.all() {
			s.commit(c)
			for _, id := range c.OriginIDs() {
				c.Trust(id)
			}
		}
		for _, a := range s.agents {
			s.now += 1000
			for _, k := range a.ow.Obligations(s.now) {
				if it, err := a.ow.Withdraw(s.now, k); err == nil {
					s.publish(a, it)
				}
			}
		}
		for _, to := range s.all() {
			for _, from := range s.all() {
				s.pull(to, from, false)
			}
		}
	}
	return s.compare()
}

func (s *schedule) compare() error {
	want := content(s.agents[0].c)
	for i, c := range s.all() {
		weight := 0
		for _, o := range c.origins {
			for _, h := range o.histories() {
				for _, cl := range h.log {
					weight += cl.weight()
				}
				if h.reset != nil {
					weight += h.reset.weight
				}
			}
		}
		if c.bytes != weight {
			return fmt.Errorf("member %d counts %d bytes, holds %d", i, c.bytes, weight)
		}
		if got := content(c); got != want {
			return fmt.Errorf("member %d diverges:\n%s\nwant\n%s", i, got, want)
		}
	}
	c := s.readers[0]
	for _, a := range s.agents {
		for k, it := range a.disk {
			_, id, _ := cutKey(k)
			cl := c.lookup(c.origins[a.id].cur, k)
			fenced := s.killed[a.id.String()+id] > 0 && it.Born.Before(record.Position{Generation: s.gen, Index: s.killed[a.id.String()+id]})
			switch {
			case cl == nil || cl.dead || cl.value != it.Value:
				return fmt.Errorf("acknowledged write %s of %v is lost", k, a.id[0])
			case !fenced && c.hidden(nil, cl) == RuleFenced && it.Born.Generation == s.gen:
				return fmt.Errorf("%s of %v is hidden by a fence it came after", k, a.id[0])
			}
		}
		h := c.origins[a.id]
		if h == nil || h.cur == nil {
			continue
		}
		for _, cl := range h.cur.log {
			if _, ok := a.disk[cl.key()]; !cl.dead && !ok {
				return fmt.Errorf("zombie: %s of %v", cl.key(), a.id[0])
			}
		}
	}
	for _, cl := range c.cells["web"].all() {
		for _, a := range s.agents {
			index := s.killed[a.id.String()+cl.id()]
			if cl.from.id == a.id && !cl.dead && index > 0 && cl.born.Before(record.Position{Generation: 1, Index: index}) {
				return fmt.Errorf("kill of %s undone", cl.key())
			}
		}
	}
	return nil
}
