package transport

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// linger is how long a stopped stream still takes and sends what is on the
	// way.
	linger = time.Second
	// keyGrace is how long a peer may take to prove another key once the ones
	// it proved have left the ring.
	keyGrace = 3 * time.Second
)

// StreamsConfig says what is done with frames.
type StreamsConfig struct {
	// Resolve returns where a member is reached now. It is called before every
	// dial, from any goroutine, and must not block.
	Resolve func(MemberID) (netip.AddrPort, bool)
	// Handler is called with every frame, from one goroutine for each stream: a
	// handler that blocks slows that peer down, and Close down. The frame
	// belongs to the handler. A panic is recovered and counted.
	Handler func(from MemberID, frame []byte)
	// Up and Down, if set, are called when the first stream to a peer opens and
	// when the last one ends, from the goroutine of the stream; they must not
	// block. When one stream ends as the next opens, Down may come after the Up
	// of the next: Peers tells what is.
	Up   func(MemberID)
	Down func(MemberID, Reason)
	// Compress sends frames above 256 bytes as gzip where that is smaller.
	// Compressed frames are always understood.
	Compress bool
	// ControlBytes, DataBytes and EagerBytes bound what waits for one peer in
	// each priority, default 1, 16 and 1 MiB; QueueFrames bounds the number in
	// each, default 8192; TotalBytes bounds all peers together, default 64 MiB.
	ControlBytes, DataBytes, EagerBytes, QueueFrames, TotalBytes int
	// MaxStreams bounds open streams and dials together; default 512.
	MaxStreams int
	// KeepAlive is the longest silence of a writer, default 10 s; ReadTimeout
	// ends a stream from which nothing came, default three times that;
	// WriteTimeout one that takes nothing, default 10 s; IdleTimeout one that
	// carried no frame, default 2 min.
	KeepAlive, ReadTimeout, WriteTimeout, IdleTimeout time.Duration
	// BackoffMin and BackoffMax bound the time after a failed dial in which
	// frames for the peer are refused: doubled each time, with full jitter in its
	// upper half. Default 100 ms and 10 s.
	BackoffMin, BackoffMax time.Duration
}

func (c StreamsConfig) withDefaults() StreamsConfig {
	c.ControlBytes = positive(c.ControlBytes, 1<<20)
	c.DataBytes = positive(c.DataBytes, 16<<20)
	c.EagerBytes = positive(c.EagerBytes, 1<<20)
	c.QueueFrames = positive(c.QueueFrames, 8192)
	c.TotalBytes = positive(c.TotalBytes, 64<<20)
	c.MaxStreams = positive(c.MaxStreams, 512)
	c.KeepAlive = positive(c.KeepAlive, 10*time.Second)
	c.ReadTimeout = positive(c.ReadTimeout, 3*c.KeepAlive)
	c.WriteTimeout = positive(c.WriteTimeout, 10*time.Second)
	c.IdleTimeout = positive(c.IdleTimeout, 2*time.Minute)
	c.BackoffMin = positive(c.BackoffMin, 100*time.Millisecond)
	c.BackoffMax = positive(c.BackoffMax, 10*time.Second)
	return c
}

// Streams carries frames between members over one long-lived stream for each
// pair, opened when there is something to send. Delivery is at most once and
// in no promised order; a frame may be lost with its stream. It is safe for
// concurrent use.
type Streams struct {
	t     *Transport
	cfg   StreamsConfig
	log   *slog.Logger
	count *counters

	ctx    context.Context // ends with Close: dials and backoffs
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex // guards what follows and every peer in peers
	peers  map[MemberID]*peer
	open   map[*stream]struct{} // all that have not ended
	dials  int
	queued int // bytes in all queues
	closed bool
}

// peer is what is known of one member.
type peer struct {
	id      MemberID
	queue   queue
	stream  *stream // the one that writes the queue, nil if there is none
	dialing bool
	// failures counts dials that failed in a row; no dial is begun before retry.
	failures int
	retry    time.Time
}

// NewStreams begins to serve frame streams, once for each Transport. They end
// with the Transport.
func (t *Transport) NewStreams(cfg StreamsConfig) (*Streams, error) {
	if cfg.Resolve == nil || cfg.Handler == nil {
		return nil, errors.New("mesh streams: Resolve and Handler must be set")
	}
	s := &Streams{
		t: t, cfg: cfg.withDefaults(), log: t.log, count: &t.count,
		peers: make(map[MemberID]*peer), open: make(map[*stream]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams != nil {
		return nil, errors.New("mesh streams: the transport has streams already")
	}
	t.streams = s
	return s, nil
}

// Send queues a frame for a peer and opens a stream if there is none. It never
// blocks: it reports false, and counts why, if the frame is too large, the
// queue is full or the peer was not reachable a moment ago. The frame belongs
// to Streams from then on.
func (s *Streams) Send(to MemberID, frame []byte, p Priority) bool {
	return s.SendAll([]MemberID{to}, frame, p) == 1
}

// SendAll queues one frame for several peers, compressing it once, and returns
// for how many.
func (s *Streams) SendAll(to []MemberID, frame []byte, p Priority) (n int) {
	f := &outFrame{raw: frame}
	for _, id := range to {
		if r := s.send(id, f, p); r != ReasonNone {
			s.count.frameDrops.add(r)
			continue
		}
		n++
	}
	return n
}

func (s *Streams) send(to MemberID, f *outFrame, prio Priority) Reason {
	if len(f.raw) > MaxFrame {
		return ReasonOversize
	}
	limit := [priorities]int{s.cfg.ControlBytes, s.cfg.DataBytes, s.cfg.EagerBytes}
	if prio >= priorities {
		prio = Eager
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ReasonClosed
	}
	if to == s.t.cfg.ID {
		return ReasonIdentity
	}
	p := s.peer(to)
	if p.stream == nil && !p.dialing {
		if time.Now().Before(p.retry) {
			return ReasonUnreachable
		}
		if len(s.open)+s.dials >= s.cfg.MaxStreams {
			return ReasonLimit
		}
	}
	if s.queued+len(f.raw) > s.cfg.TotalBytes || !p.queue.push(f, prio, s.cfg.QueueFrames, limit[prio]) {
		return ReasonQueueFull
	}
	s.queued += len(f.raw)
	switch {
	case p.stream != nil:
		p.stream.notify()
	case !p.dialing:
		s.dial(p, 0)
	}
	return ReasonNone
}

// peer returns the entry of a member. The caller holds mu.
func (s *Streams) peer(id MemberID) *peer {
	p := s.peers[id]
	if p == nil {
		if len(s.peers) >= 2*s.cfg.MaxStreams {
			s.forgetPeers()
		}
		p = &peer{id: id}
		s.peers[id] = p
	}
	return p
}

// forgetPeers drops the entries of members there is nothing to remember of.
// The caller holds mu.
func (s *Streams) forgetPeers() {
	now := time.Now()
	for id, p := range s.peers {
		if p.stream == nil && !p.dialing && p.queue.len() == 0 && now.After(p.retry) {
			delete(s.peers, id)
		}
	}
}

// next takes the next frame a stream shall write.
func (s *Streams) next(st *stream) *outFrame {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[st.remote.member]
	if p == nil || p.stream != st {
		return nil
	}
	f := p.queue.pop()
	if f != nil {
		s.queued -= len(f.raw)
	}
	return f
}

// shed drops what waits for a peer. The caller holds mu.
func (s *Streams) shed(p *peer, r Reason) {
	s.queued -= p.queue.size()
	for range p.queue.len() {
		s.count.frameDrops.add(r)
	}
	p.queue = queue{}
}

// Disconnect ends the stream to a peer, if any, and drops what waits for it.
// The next frame for the peer opens another, whatever failed before.
func (s *Streams) Disconnect(id MemberID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[id]; p != nil {
		s.shed(p, ReasonClosed)
		p.failures, p.retry = 0, time.Time{}
		if p.stream != nil {
			p.stream.stop(ReasonClosed)
		}
	}
}

// PeerInfo describes an open stream.
type PeerInfo struct {
	ID         MemberID
	Addr       netip.AddrPort // of the far end of the connection
	Dialed     bool           // by this member
	Opened     time.Time
	Queued     int // frames that wait
	QueueBytes int
}

// Peers lists the members there is a stream to, in no order.
func (s *Streams) Peers() []PeerInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var infos []PeerInfo
	for _, p := range s.peers {
		if st := p.stream; st != nil {
			infos = append(infos, PeerInfo{
				ID: p.id, Addr: addrPortOf(st.RemoteAddr()), Dialed: st.dialed, Opened: st.opened,
				Queued: p.queue.len(), QueueBytes: p.queue.size(),
			})
		}
	}
	return infos
}

// Close ends all streams, telling the peers, and waits for their goroutines;
// later calls of Send return false. It takes about a second at most unless a
// handler blocks.
func (s *Streams) Close() {
	s.mu.Lock()
	s.closed = true
	for _, p := range s.peers {
		s.shed(p, ReasonClosed)
	}
	for st := range s.open {
		st.stop(ReasonClosed)
	}
	s.mu.Unlock()
	s.cancel()
	s.done.Wait()
}

// gauges returns what Stats tells of now.
func (s *Streams) gauges() (streams, queueBytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), s.queued
}

// violation counts an error that ends a stream, if the peer is at fault.
func (s *Streams) violation(st *stream, err error) error {
	if r, ok := errors.AsType[*refused](err); ok {
		s.count.streamDrops.add(r.reason)
	}
	if !closedNormally(err) {
		s.log.Debug("stream broken", "peer", st.remote.member, "error", err)
	}
	return err
}
