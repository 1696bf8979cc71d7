package mesh

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh/transport"
)

const (
	leaveTimeout = 3 * time.Second
	joinAtOnce   = 3    // seeds of one attempt
	packetSize   = 1400 // bytes of a packet on the wire
)

// gossip is a member on memberlist. With an engine it is the crdt
// implementation; without one, memberlist carries the data as well.
type gossip struct {
	cfg     Config
	ml      *memberlist.Memberlist
	net     *transport.Transport
	streams *transport.Streams
	rejoin  *transport.Rejoiner
	ring    *transport.Keyring // nil in a mesh without keys

	step sync.Mutex // serialises the engine; taken before the replica's lock
	eng  *engine

	mu      sync.Mutex // guards what is below
	known   map[string]Member
	events  []memberEvent
	dropped map[string]uint64
	last    time.Time // a frame came
	leaving bool
	closed  bool
	holders chan struct{} // closed and replaced when a peer's head arrived

	carrier *carrier // of the memberlist implementation
	wake    chan struct{}
	news    chan struct{}
	stop    chan struct{}
	cancel  context.CancelFunc // of the rejoiner
	wg      sync.WaitGroup
}

type memberEvent struct {
	node Member
	down bool
}

var _ Mesh = (*gossip)(nil)

func newGossip(cfg Config) (*gossip, error) {
	g := &gossip{
		cfg: cfg, known: map[string]Member{}, dropped: map[string]uint64{},
		wake: make(chan struct{}, 1), news: make(chan struct{}, 1), stop: make(chan struct{}), holders: make(chan struct{}),
	}
	g.eng = newEngine(cfg.ID, cfg.Cluster, rand.Uint64())
	g.eng.onClone = cfg.OnClone
	if err := g.listen(); err != nil {
		if g.net != nil {
			_ = g.net.Shutdown()
		}
		return nil, err
	}
	if cfg.Impl == Memberlist {
		g.carrier, g.eng.passive = newCarrier(g), true
	}
	var err error
	if g.rejoin, err = g.rejoiner(); err == nil {
		g.ml, err = memberlist.Create(g.config())
	}
	if err != nil {
		_ = g.net.Shutdown()
		return nil, fmt.Errorf("mesh: %w", err)
	}
	g.members() // this one
	n, err := startIncarnation(cfg.State, time.Now())
	if err != nil {
		cfg.Logger.Warn("members that hold this one dead may take a while to believe that it is back", "error", err)
	}
	g.net.Inject(accusation(cfg.ID, n))
	g.wg.Go(g.run)
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.wg.Go(func() { g.rejoin.Run(ctx) })
	return g, nil
}

func (g *gossip) config() *memberlist.Config {
	conf := memberlist.DefaultLANConfig()
	conf.Name = g.cfg.ID
	conf.Transport = g.net // it does the work of Label, Keyring and CIDRsAllowed
	conf.Delegate = (*delegate)(g)
	conf.Events = (*delegate)(g)
	conf.Alive = (*delegate)(g)
	conf.GossipInterval = 100 * time.Millisecond
	conf.GossipNodes = 4
	conf.PushPullInterval = 15 * time.Second // of members only; the library stretches it as the mesh grows
	conf.GossipToTheDeadTime = time.Minute
	conf.DeadNodeReclaimTime = 30 * time.Second
	conf.HandoffQueueDepth = 4096
	conf.UDPBufferSize = packetSize - g.net.PacketOverhead()
	conf.EnableCompression = g.cfg.Compression
	conf.BindPort, conf.AdvertisePort = 0, 0
	conf.Logger = log.New(logWriter{g.cfg.Logger}, "", 0)
	if g.carrier != nil {
		conf.PushPullInterval = 10 * time.Second
	}
	return conf
}

// rejoiner looks for members that were lost, and for seeds, for as long as the
// member lives: memberlist alone never heals a split that lasted.
func (g *gossip) rejoiner() (*transport.Rejoiner, error) {
	return transport.NewRejoiner(transport.RejoinConfig{
		Seeds: g.cfg.Seeds, Self: g.net.Addr(), Logger: g.cfg.Logger,
		Join: func(addr string) error {
			_, err := g.ml.Join([]string{addr})
			return err
		},
	})
}

// do runs a step of the engine and carries out what it led to. A panic in it
// is logged and counted; it must not take the process with it.
func (g *gossip) do(f func(now int64, c *catalog.Catalog)) {
	g.step.Lock()
	defer g.step.Unlock()
	defer func() {
		if r := recover(); r != nil {
			g.drop("panic")
			g.cfg.Logger.Error("mesh step panicked", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	var out []send
	before, mismatches := g.eng.next(), g.eng.stats.Mismatches
	g.cfg.Replica.Update(func(c *catalog.Catalog) (ch catalog.Changes) {
		g.eng.begin()
		f(time.Now().UnixMilli(), c)
		out, ch = g.eng.end()
		return ch
	})
	g.transmit(out)
	if n := g.eng.stats.Mismatches - mismatches; n > 0 {
		g.cfg.Logger.Error("copies of origins hold other records than were written, by a fault of memory or program; they are taken anew from others", "origins", n)
	}
	if g.eng.next() < before {
		poke(g.wake)
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run is the member's clock: it ticks the engine and takes in membership.
func (g *gossip) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-g.news:
			g.members()
		case <-g.wake:
		case <-timer.C:
		}
		g.step.Lock()
		due := g.eng.next()
		g.step.Unlock()
		now := time.Now().UnixMilli()
		if due <= now {
			g.do(func(now int64, c *catalog.Catalog) { g.eng.tick(now, c) })
			if g.carrier != nil {
				g.carrier.beacons()
			}
			g.step.Lock()
			due = g.eng.next()
			g.step.Unlock()
		}
		timer.Reset(time.Duration(min(max(due-now, 1), 60_000)) * time.Millisecond)
	}
}

// receive takes in a frame from a stream.
func (g *gossip) receive(from transport.MemberID, frame []byte) {
	g.do(func(now int64, c *catalog.Catalog) { g.eng.receive(now, c, string(from), frame) })
	g.mu.Lock()
	g.last = time.Now()
	close(g.holders)
	g.holders = make(chan struct{})
	g.mu.Unlock()
}

func (g *gossip) drop(reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropped[reason]++
}

// Publish implements Mesh.
func (g *gossip) Publish(d catalog.Delta) {
	if g.isClosed() {
		return
	}
	if g.carrier != nil {
		g.carrier.publish(&d)
		return
	}
	g.do(func(now int64, _ *catalog.Catalog) { g.eng.local(now, &d) })
}

// Commit implements Mesh.
func (g *gossip) Commit(b catalog.Batch) {
	if g.isClosed() {
		return
	}
	g.do(func(int64, *catalog.Catalog) { g.eng.commit(&b) })
	if g.carrier != nil {
		g.carrier.commit(&b)
	}
}

// SetCluster implements Mesh.
func (g *gossip) SetCluster(id string) {
	g.do(func(now int64, _ *catalog.Catalog) { g.eng.setCluster(now, id) })
}

func (g *gossip) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// Confirm implements Mesh.
func (g *gossip) Confirm(ctx context.Context, head catalog.Head, k int) (int, error) {
	g.do(func(now int64, _ *catalog.Catalog) { g.eng.await(now, head) })
	defer g.do(func(int64, *catalog.Catalog) { g.eng.awaitEnd() })
	for {
		g.mu.Lock()
		changed, closed := g.holders, g.closed
		g.mu.Unlock()
		g.step.Lock()
		n := g.eng.holders(head)
		g.step.Unlock()
		if n >= k {
			return n, nil
		}
		if closed {
			return n, ErrClosed
		}
		select {
		case <-changed:
		case <-g.stop:
			return n, ErrClosed
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}

// Keys implements Mesh.
func (g *gossip) Keys() []string {
	out := []string{}
	if g.ring != nil {
		for _, k := range g.ring.Keys() {
			out = append(out, k.ID().String())
		}
	}
	return out
}

// SetKeys implements Mesh.
func (g *gossip) SetKeys(keys [][]byte) error {
	parsed, err := parseKeys(keys)
	if err != nil {
		return err
	}
	if g.ring == nil {
		return fmt.Errorf("%w: this mesh was started without keys; restart its members with one", ErrKey)
	}
	if err := g.ring.Replace(parsed); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	return nil
}

// Stats implements Mesh.
func (g *gossip) Stats() Stats {
	g.step.Lock()
	s := g.eng.stats
	s.Dropped = maps.Clone(s.Dropped)
	g.step.Unlock()
	net := g.net.Stats()
	for _, r := range transport.Reasons() {
		if n := net.PacketDrops.Of(r) + net.StreamDrops.Of(r) + net.FrameDrops.Of(r); n > 0 {
			s.Dropped[r.String()] += n
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for reason, n := range g.dropped {
		s.Dropped[reason] += n
	}
	s.LastFrame = g.last
	return s
}

// Leave implements Mesh.
func (g *gossip) Leave(ctx context.Context) error {
	if g.isClosed() {
		return ErrClosed
	}
	g.mu.Lock()
	g.leaving = true
	g.mu.Unlock()
	timeout := leaveTimeout
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(d))
	}
	err := g.ml.UpdateNode(timeout / 2) // the metadata says that it goes
	err = errors.Join(err, g.ml.Leave(timeout/2))
	return errors.Join(err, g.Close())
}

// Close implements Mesh.
func (g *gossip) Close() error {
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	close(g.stop)
	g.cancel()
	err := g.ml.Shutdown()
	g.wg.Wait()
	return err
}
