package mesh

import (
	"math/rand/v2"
	"slices"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Times of the protocol, in milliseconds.
const (
	pushEvery   = 50   // at most so often is what was learned pushed
	pushDelay   = 5    // what comes together travels together
	haveEvery   = 250  // heads that moved lately, to one active peer
	haveWindow  = 1000 // what "lately" means
	digestEvery = 5000 // comparison with one random member
	viewEvery   = 30_000
	gapPatience = 100 // a gap may close by itself
	pullRetry   = 300 // then somebody else is asked
	fetchRetry  = 2000
	fetchTries  = 5 // not a time: peers asked for one position
	askEvery    = 50
	vainPulls   = 8 // not a time: what nobody has is no longer asked for
)

const (
	fanout     = 4  // peers that a push goes to
	activeView = 24 // peers that pushes are chosen from
	pullBytes  = 1 << 20
	maxPulls   = 4096 // origins that are pulled at once, whoever says that they exist
	fetchAhead = 4    // parts of a full state under way
	maxServing = 4    // full states served at once
	maxFresh   = 4 << 20
)

// urgency orders the frames for one peer: when its queue is full, the least
// urgent go first.
type urgency uint8

const (
	urgentControl urgency = iota // small, and repairs depend on it
	urgentData                   // asked for
	urgentEager                  // repaired if lost
)

// send is an effect of a step: a frame for one peer. The body is shared
// between sends and must not be changed.
type send struct {
	to   string
	body []byte
	urg  urgency
}

// engine is the protocol as a step function: no goroutine, clock, socket or
// lock. Equal calls give equal effects, the seed included. The catalog is an
// argument because somebody else owns it.
type engine struct {
	self    string
	cluster string
	rng     *rand.Rand
	// passive leaves the spreading of data to somebody else: the engine only
	// takes in, and finds out who holds what.
	passive bool
	onClone func(record.OriginID)
	// onLearned is called when something of an origin was taken in.
	onLearned func(record.OriginID)

	peers  []string // alive members, sorted
	active []string // those that pushes are chosen from
	greet  []string // members to compare with at once

	fresh      []*catalog.Delta // learned, not yet passed on
	freshBytes int
	moved      map[record.OriginID]int64 // when a head moved
	pulls      map[record.OriginID]*pull
	asked      map[string]catalog.Head // who holds what of the awaited head
	awaited    catalog.Head
	awaiting   int

	seal    catalog.Seal
	asm     assembly
	fetch   fetching
	serving map[string]*served

	beacons    []beacon // not yet passed on
	sighted    map[record.OriginID]sighting
	nextBeacon int64

	doubts   map[record.OriginID]*doubt
	repairs  repairing
	scrubbed record.OriginID // the last origin whose content was checked

	reports   []Report            // how far the DNS members here are
	questions map[string]question // who waits for more of that
	surveys   map[*survey]bool    // questions to others

	nextPush, nextHave, nextDigest, nextView, nextAsk int64
	lastPush                                          int64

	out     []send
	changes catalog.Changes
	stats   Stats
}

// pull is a request for an origin that is planned or under way.
type pull struct {
	head catalog.Head // what somebody has
	peer string       // who is asked next, or was
	due  int64        // when to ask, or to ask somebody else
	sent bool
	came bool // the answer held something new
	vain int  // requests without an answer, or with one that held nothing
}

// fetching is a request for committed state under way.
type fetching struct {
	peer  string
	at    record.Position // what somebody says there is
	due   int64           // when to ask somebody else; 0: none
	tries int
}

// served is a full state on its way to a peer.
type served struct {
	parts []catalog.Batch
	since int64
}

func newEngine(self, cluster string, seed uint64) *engine {
	return &engine{
		self: self, cluster: cluster, rng: rand.New(rand.NewPCG(seed, seed^0x5bf03635)),
		moved: map[record.OriginID]int64{}, pulls: map[record.OriginID]*pull{},
		asked: map[string]catalog.Head{}, serving: map[string]*served{}, doubts: map[record.OriginID]*doubt{},
		sighted:   map[record.OriginID]sighting{},
		questions: map[string]question{}, surveys: map[*survey]bool{},
		stats: Stats{Dropped: map[string]uint64{}},
	}
}

// begin starts a step; end returns what it led to.
func (e *engine) begin() {
	e.out, e.changes = nil, catalog.Changes{}
}

func (e *engine) end() ([]send, catalog.Changes) { return e.out, e.changes }

// join adds changes to those of the step.
func (e *engine) join(ch catalog.Changes) {
	e.changes.All = e.changes.All || ch.All
	e.changes.Services = append(e.changes.Services, ch.Services...)
	e.changes.Nodes = append(e.changes.Nodes, ch.Nodes...)
}

// peerUp takes in a member that is alive.
func (e *engine) peerUp(now int64, id string) {
	i, found := slices.BinarySearch(e.peers, id)
	if found || id == e.self {
		return
	}
	e.peers = slices.Insert(e.peers, i, id)
	if len(e.active) < activeView {
		e.active = append(e.active, id)
	}
	if len(e.greet) < 2 {
		e.greet = append(e.greet, id)
		e.nextDigest = earlier(e.nextDigest, now)
	}
	e.schedule(now)
}

// peerDown forgets a member that is dead or gone.
func (e *engine) peerDown(id string) {
	if i, found := slices.BinarySearch(e.peers, id); found {
		e.peers = slices.Delete(e.peers, i, i+1)
	}
	same := func(s string) bool { return s == id }
	e.active = slices.DeleteFunc(e.active, same)
	e.greet = slices.DeleteFunc(e.greet, same)
	delete(e.serving, id)
	delete(e.asked, id)
	delete(e.questions, id)
	e.refill()
}

// refill completes the active view at random.
func (e *engine) refill() {
	for len(e.active) < min(activeView, len(e.peers)) {
		id := e.peers[e.rng.IntN(len(e.peers))]
		if !slices.Contains(e.active, id) {
			e.active = append(e.active, id)
		}
	}
}

// schedule sets the timers that do not run yet.
func (e *engine) schedule(now int64) {
	if e.nextHave == 0 {
		e.nextHave = now + e.about(haveEvery)
		e.nextView = now + e.about(viewEvery)
		e.nextBeacon = now + e.about(beaconEvery)
		if e.nextDigest == 0 {
			e.nextDigest = now + e.about(digestEvery)
		}
	}
}

// about spreads a period by 20 % to each side.
func (e *engine) about(ms int64) int64 { return ms*4/5 + e.rng.Int64N(ms*2/5+1) }

// local passes on a delta that the own catalog holds.
func (e *engine) local(now int64, d *catalog.Delta) {
	e.learned(now, d)
	e.nextPush = min(e.nextPush, now+pushDelay)
}

// learned queues a delta to be passed on once.
func (e *engine) learned(now int64, d *catalog.Delta) {
	e.moved[d.Origin] = now
	if e.freshBytes += d.Size(); e.freshBytes > maxFresh {
		e.freshBytes -= d.Size()
		e.drop("fresh")
		e.nextPush = earlier(e.nextPush, now)
		return
	}
	e.fresh = append(e.fresh, d)
	e.nextPush = earlier(e.nextPush, max(now+pushDelay, e.lastPush+pushEvery))
}

func earlier(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

func (e *engine) drop(reason string) { e.stats.Dropped[reason]++ }

// next returns when tick must be called, in milliseconds.
func (e *engine) next() int64 {
	due := int64(1<<63 - 1)
	for _, t := range []int64{e.nextPush, e.nextHave, e.nextDigest, e.nextView, e.nextAsk, e.nextBeacon, e.fetch.due, e.doubtDue()} {
		if t != 0 {
			due = min(due, t)
		}
	}
	for _, p := range e.pulls {
		due = min(due, p.due)
	}
	return due
}

// tick does what is due.
func (e *engine) tick(now int64, c *catalog.Catalog) {
	if e.passive {
		e.nextPush, e.nextHave, e.nextDigest, e.nextView = 0, 0, 0, 0
		if e.nextAsk != 0 && now >= e.nextAsk {
			e.ask(now)
		}
		if e.nextBeacon != 0 && now >= e.nextBeacon {
			e.shine(now, c)
			e.nextPush = 0
		}
		return
	}
	if e.nextPush != 0 && now >= e.nextPush {
		e.lastPush = now
		e.flush()
	}
	if len(e.peers) == 0 {
		e.nextHave, e.nextDigest, e.nextView, e.nextAsk, e.nextBeacon, e.fetch = 0, 0, 0, 0, 0, fetching{}
		clear(e.pulls)
		e.forgetDoubts(c)
		return
	}
	e.schedule(now)
	if e.nextHave != 0 && now >= e.nextHave {
		e.nextHave = now + e.about(haveEvery)
		e.sendHave(now, c, pick(e.rng, e.active), false)
	}
	if e.nextDigest != 0 && now >= e.nextDigest {
		e.compare(now, c)
		e.scrub(now, c)
	}
	if e.nextView != 0 && now >= e.nextView {
		e.nextView = now + e.about(viewEvery)
		if len(e.peers) > len(e.active) && len(e.active) == activeView {
			i := e.rng.IntN(len(e.active))
			e.active = slices.Delete(e.active, i, i+1)
			e.refill()
		}
	}
	if e.nextAsk != 0 && now >= e.nextAsk {
		e.ask(now)
	}
	if e.nextBeacon != 0 && now >= e.nextBeacon {
		e.shine(now, c)
	}
	if e.fetch.due != 0 && now >= e.fetch.due {
		e.fetchFrom(now, c, pick(e.rng, e.active))
	}
	e.pullDue(now, c)
	e.repair(now, c)
}

// takeFresh returns what was learned and not yet passed on, for a carrier that
// passes it on in its own way.
func (e *engine) takeFresh() []*catalog.Delta {
	fresh := e.fresh
	e.fresh, e.freshBytes, e.nextPush = nil, 0, 0
	return fresh
}

// flush pushes what was learned to a few active peers.
func (e *engine) flush() {
	e.nextPush = 0
	for body := e.takeBeacons(); body != nil; body = e.takeBeacons() {
		for _, id := range e.sample(fanout) {
			e.send(id, body, urgentEager)
		}
	}
	fresh := e.fresh
	e.fresh, e.freshBytes = nil, 0
	for len(fresh) > 0 {
		n, size := 0, 0
		for n < len(fresh) && (n == 0 || size+fresh[n].Size() <= pushBytes) {
			size += fresh[n].Size()
			n++
		}
		body := appendDeltas(nil, framePush, endNot, fresh[:n])
		for _, id := range e.sample(fanout) {
			e.send(id, body, urgentEager)
		}
		fresh = fresh[n:]
	}
}

// sample returns who a push goes to: n active peers at random, and the next
// member in the ring of ids. Random choice alone leaves out e^-n of the members
// each time; with the ring, a member is left out only if the one before it is.
func (e *engine) sample(n int) []string {
	out := make([]string, 0, n+1)
	if len(e.peers) > 0 {
		i, found := slices.BinarySearch(e.peers, e.self)
		if found {
			i++
		}
		out = append(out, e.peers[i%len(e.peers)])
	}
	for _, i := range e.rng.Perm(len(e.active)) {
		if len(out) > n {
			break
		}
		if e.active[i] != out[0] {
			out = append(out, e.active[i])
		}
	}
	return out
}

func pick(rng *rand.Rand, ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return ids[rng.IntN(len(ids))]
}

func (e *engine) send(to string, body []byte, u urgency) {
	if to == "" || to == e.self {
		return
	}
	e.out = append(e.out, send{to: to, body: body, urg: u})
	e.stats.FramesOut++
	e.stats.BytesOut += uint64(len(body))
}
