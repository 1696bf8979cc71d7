package mesh

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// The simulator runs engines in virtual time over links that it models:
// latency, loss as the retransmission timer of a stream, dials, the sender's
// bandwidth, partitions, crashes. One seed is one run.
var simSeed = flag.Uint64("sim.seed", 1, "seed of the simulation")

// simConfig describes a network, times in milliseconds.
type simConfig struct {
	members   int
	origins   int     // members that write
	loss      float64 // of packets
	latency   [2]float64
	bandwidth float64 // bytes per millisecond and member
	dup       float64 // frames delivered twice
	skew      int64   // clocks differ by up to this
}

var lan = simConfig{loss: 0.01, latency: [2]float64{0.3, 2}, bandwidth: 125_000}

const retransmit = 200 // first retransmission timer of a stream, in milliseconds

type simMember struct {
	id    string
	index int
	e     *engine
	c     *catalog.Catalog
	ow    *catalog.Owner
	skew  int64
	busy  float64 // until when its link sends
	dials map[string]float64
	last  map[string]float64 // when the last frame to a peer arrives: streams keep order
	due   float64            // the tick that is queued
	down  bool
	sends int
}

type simEvent struct {
	at    float64
	order int
	run   func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

type sim struct {
	cfg     simConfig
	rng     *rand.Rand
	now     float64
	queue   simQueue
	order   int
	members []*simMember
	byID    map[string]*simMember
	side    map[string]int // of a partition; all 0: none
	copies  int            // of changes on their way
	frames  int            // that carried them
	size    int            // bytes of the last change, as it was published
}

const simStart = 100_000_000 // more than clocks can be off

func newSim(cfg simConfig, seed uint64) *sim {
	s := &sim{cfg: cfg, rng: rand.New(rand.NewPCG(seed, 3)), now: simStart, byID: map[string]*simMember{}, side: map[string]int{}}
	for i := range cfg.members {
		m := &simMember{id: fmt.Sprintf("m%05d", i), index: i, c: catalog.New(), dials: map[string]float64{}, last: map[string]float64{}}
		if cfg.skew > 0 {
			m.skew = s.rng.Int64N(2*cfg.skew) - cfg.skew
		}
		m.e = newEngine(m.id, "", seed*1_000_003+uint64(i))
		s.members = append(s.members, m)
		s.byID[m.id] = m
	}
	ids := make([]string, len(s.members))
	for i, m := range s.members {
		ids[i] = m.id
	}
	for i, m := range s.members {
		// Membership is given: the simulation is about data. One list serves
		// all; what a member sends to itself is dropped.
		m.e.peers = ids
		m.e.refill()
		m.e.schedule(int64(s.now) + m.skew)
		m.e.nextDigest = int64(s.now) + m.skew + m.e.about(digestEvery)
		if i < cfg.origins {
			ow, _, err := m.c.Own(int64(s.now)+m.skew, record.OriginID{byte(i), byte(i >> 8), 1}, 1, uint64(i)+1, nil)
			if err != nil {
				panic(err)
			}
			m.ow = ow
		}
		s.arm(m)
	}
	return s
}

func (s *sim) at(t float64, run func()) {
	s.order++
	heap.Push(&s.queue, simEvent{at: t, order: s.order, run: run})
}

// run advances to a time.
func (s *sim) run(until float64) {
	for len(s.queue) > 0 && s.queue[0].at <= until {
		ev := heap.Pop(&s.queue).(simEvent)
		s.now = ev.at
		ev.run()
	}
	s.now = until
}

// level gives every member what was written so far.
func (s *sim) level() {
	for _, m := range s.members {
		if m.ow == nil {
			continue
		}
		for _, d := range m.c.Pull(catalog.Want{Origin: m.ow.ID()}, 1<<30) {
			for _, o := range s.members {
				if _, err := o.c.Merge(int64(s.now), &d); err != nil {
					panic(err)
				}
			}
		}
	}
}

// arm queues the member's next tick.
func (s *sim) arm(m *simMember) {
	due := max(float64(m.e.next()-m.skew), s.now)
	if m.due != 0 && m.due <= due {
		return
	}
	m.due = due
	s.at(due, func() {
		if m.due != s.now {
			return // superseded
		}
		m.due = 0
		if !m.down {
			s.step(m, func(now int64) { m.e.tick(now, m.c) })
		}
	})
}

func (s *sim) step(m *simMember, f func(now int64)) {
	m.e.begin()
	f(int64(s.now) + m.skew + 1)
	out, _ := m.e.end()
	for _, o := range out {
		s.transmit(m, o)
	}
	s.arm(m)
}

// transmit models one frame on a stream.
func (s *sim) transmit(m *simMember, o send) {
	to := s.byID[o.to]
	m.sends++
	if o.body[0] == framePush || o.body[0] == frameData {
		s.frames++
		_, rest, _ := cutEnding(o.body[1:])
		for len(rest) > 0 {
			_, rest, _ = cutDelta(rest)
			s.copies++
		}
	}
	t := max(s.now, m.busy) + float64(len(o.body)+60)/s.cfg.bandwidth
	m.busy = t
	rtt := func() float64 { return 2 * s.latency() }
	if s.now > m.dials[o.to]+60_000 || m.dials[o.to] == 0 {
		t += rtt() + rtt() // TCP and TLS 1.3
	}
	m.dials[o.to] = s.now
	timer := float64(retransmit)
	for packets := 1 + len(o.body)/1400; packets > 0; packets-- {
		for s.rng.Float64() < s.cfg.loss {
			t += timer
			timer *= 2
		}
	}
	t = max(t+s.latency(), m.last[o.to])
	m.last[o.to] = t
	deliver := func() {
		if to.down || m.down || s.side[m.id] != s.side[to.id] {
			return
		}
		s.step(to, func(now int64) { to.e.receive(now, to.c, m.id, o.body) })
	}
	s.at(t, deliver)
	if s.rng.Float64() < s.cfg.dup {
		s.at(t+s.latency()*10, deliver)
	}
}

func (s *sim) latency() float64 {
	return s.cfg.latency[0] + s.rng.Float64()*(s.cfg.latency[1]-s.cfg.latency[0])
}

var simAddrs = []netip.Addr{netip.MustParseAddr("10.0.0.9")}

// write changes one of the member's instances and publishes it.
func (s *sim) write(m *simMember, id string) catalog.Head {
	now := int64(s.now) + m.skew
	in := &record.Instance{Service: "web", ID: m.id + "-" + id, Weight: uint16(s.rng.IntN(60_000) + 1), Addrs: simAddrs}
	it, _, err := m.ow.Register(now, in)
	if err != nil {
		panic(err)
	}
	d, _ := m.ow.Commit(now, it)
	s.size = len(appendDeltas(nil, framePush, endNot, []*catalog.Delta{&d}))
	s.step(m, func(now int64) { m.e.local(now, &d) })
	return m.ow.Head()
}
