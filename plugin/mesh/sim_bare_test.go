package mesh

import (
	"container/heap"
	"math"
	"math/rand/v2"
)

// What memberlist does with a broadcast by default on a LAN: every 200 ms to 3
// members at random, and with each probe and its answer, until it was sent
// retransmitMult*ceil(log10(n+1)) times; those sent least go first, of these
// the newest. A packet is sent once and carries 1400 bytes.
const (
	bareInterval   = 200
	bareNodes      = 3
	bareProbe      = 1000
	bareMult       = 4
	barePacket     = 1400 - 2 // bytes for messages
	bareOverhead   = 3        // bytes with each message
	barePacketHead = 60
)

// bareSim is a mesh of members that spread changes with memberlist's broadcast
// queue and nothing else, over the links of a sim.
type bareSim struct {
	*sim
	nodes   []*bareNode
	limit   int // transmissions of one message by one member
	fits    int // messages in a packet
	size    float64
	changes []*awaited
	copies  int
	packets int
}

// bareNode is one member.
type bareNode struct {
	index  int
	seen   []uint64   // one bit per change
	queues []bareHeap // by number of transmissions
	nextID uint32
	busy   float64 // until when its link sends
}

// bareHeap holds messages, the newest at the top: when it was queued in the
// upper half, the change in the lower.
type bareHeap []uint64

func (h bareHeap) Len() int           { return len(h) }
func (h bareHeap) Less(i, j int) bool { return h[i] > h[j] }
func (h bareHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *bareHeap) Push(x any)        { *h = append(*h, x.(uint64)) }
func (h *bareHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// newBareSim returns a mesh like that of cfg, for messages of a size in bytes.
func newBareSim(cfg simConfig, seed uint64, size int) *bareSim {
	b := &bareSim{
		sim:   &sim{cfg: cfg, rng: rand.New(rand.NewPCG(seed, 3)), now: simStart},
		limit: bareMult * int(math.Ceil(math.Log10(float64(cfg.members+1)))),
		fits:  barePacket / (size + bareOverhead), size: float64(size + bareOverhead),
	}
	for i := range cfg.members {
		n := &bareNode{index: i, queues: make([]bareHeap, b.limit)}
		b.nodes = append(b.nodes, n)
		b.every(bareInterval, func() {
			for range bareNodes {
				b.send(n, b.other(n), nil)
			}
		})
		b.every(bareProbe, func() {
			to := b.other(n)
			b.send(n, to, func() { b.send(to, n, nil) })
		})
	}
	return b
}

// every repeats something from a random phase on.
func (b *bareSim) every(ms float64, run func()) {
	var again func()
	again = func() {
		run()
		b.at(b.now+ms, again)
	}
	b.at(b.now+b.rng.Float64()*ms, again)
}

func (b *bareSim) other(n *bareNode) *bareNode {
	i := b.rng.IntN(len(b.nodes) - 1)
	if i >= n.index {
		i++
	}
	return b.nodes[i]
}

// send fills one packet and sends it; then runs when it arrives.
func (b *bareSim) send(n, to *bareNode, then func()) {
	var taken []uint64
	var from []int
	for t := 0; t < b.limit && len(taken) < b.fits; t++ {
		for len(n.queues[t]) > 0 && len(taken) < b.fits {
			taken = append(taken, heap.Pop(&n.queues[t]).(uint64))
			from = append(from, t)
		}
	}
	for i, m := range taken {
		if t := from[i] + 1; t < b.limit {
			heap.Push(&n.queues[t], m)
		}
	}
	if len(taken) == 0 && then == nil {
		return // there is nothing to gossip
	}
	b.copies += len(taken)
	b.packets++
	n.busy = max(b.now, n.busy) + (float64(len(taken))*b.size+barePacketHead)/b.cfg.bandwidth
	if b.rng.Float64() < b.cfg.loss {
		return
	}
	b.at(n.busy+b.latency(), func() {
		for _, m := range taken {
			b.learn(to, uint32(m))
		}
		if then != nil {
			then()
		}
	})
}

// learn takes in a change, if it is new, and queues it.
func (b *bareSim) learn(n *bareNode, change uint32) {
	bit := uint64(1) << (change % 64)
	for int(change/64) >= len(n.seen) {
		n.seen = append(n.seen, 0)
	}
	if n.seen[change/64]&bit != 0 {
		return
	}
	n.seen[change/64] |= bit
	b.changes[change].reached(b.now, n.index)
	n.nextID++
	heap.Push(&n.queues[0], uint64(n.nextID)<<32|uint64(change))
}

// measure writes changes as the measure of a sim does.
func (b *bareSim) measure(perSecond, seconds float64) *spread {
	sp := &spread{}
	begin := b.now
	for i := range int(perSecond * seconds) {
		b.at(begin+float64(i)*1000/perSecond, func() {
			n := b.nodes[b.rng.IntN(b.cfg.origins)]
			b.changes = append(b.changes, newAwaited(sp, b.now, len(b.nodes), n.index))
			b.learn(n, uint32(len(b.changes)-1))
		})
	}
	b.run(begin + seconds*1000 + 5000)
	for _, a := range b.changes {
		a.end()
	}
	return sp
}
