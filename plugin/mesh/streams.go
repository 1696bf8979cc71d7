package mesh

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of what waits for one peer, in bytes, by urgency; and of streams.
var queueLimit = [...]int{urgentControl: 1 << 20, urgentData: 16 << 20, urgentEager: 1 << 20}

const (
	maxStreams = 1024 // taken in at once
	idleStream = time.Minute
	redial     = time.Second // after a failed dial, frames for the peer are dropped for so long
)

// streams carries frames to and from peers, both ways on each stream. A member
// sends on the stream that came up last, whoever opened it, so that it can
// answer a peer whose address it has wrong. Nothing here blocks the caller.
type streams struct {
	id, label string
	tls       *tls.Config
	compress  bool
	dial      func(memberlist.Address, time.Duration) (net.Conn, error)
	addr      func(id string) (string, bool)
	receive   func(from string, frame []byte)
	dropped   func(reason string)

	mu     sync.Mutex // guards what is below
	ring   [][]byte
	out    map[string]*outgoing
	open   map[net.Conn]*stream // raw connection → its stream; nil while it is proven
	closed bool
	stop   chan struct{}
	wg     sync.WaitGroup
}

// outgoing is what waits for one peer.
type outgoing struct {
	frames [len(queueLimit)][][]byte
	bytes  [len(queueLimit)]int
	ready  chan struct{}
	cur    *stream // nil: none is open
}

// stream is a proven connection to a peer.
type stream struct {
	raw  net.Conn
	tls  *tls.Conn
	peer hello
}

func newStreams(id, label string, ring [][]byte) (*streams, error) {
	cfg, err := throwaway()
	if err != nil {
		return nil, err
	}
	return &streams{
		id: id, label: label, tls: cfg, ring: ring,
		out: map[string]*outgoing{}, open: map[net.Conn]*stream{}, stop: make(chan struct{}),
	}, nil
}

// send queues frames. What does not fit is dropped: repairs will find it.
func (s *streams) send(frames []send) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, f := range frames {
		o := s.out[f.to]
		if o == nil {
			if _, known := s.addr(f.to); !known {
				s.dropped("unreachable")
				continue
			}
			o = s.add(f.to)
		}
		if o.bytes[f.urg]+len(f.body) > queueLimit[f.urg] {
			s.dropped("queue")
			continue
		}
		o.frames[f.urg] = append(o.frames[f.urg], f.body)
		o.bytes[f.urg] += len(f.body)
		select {
		case o.ready <- struct{}{}:
		default:
		}
	}
}

// add makes the place of a peer. s.mu is held.
func (s *streams) add(id string) *outgoing {
	o := &outgoing{ready: make(chan struct{}, 1)}
	s.out[id] = o
	s.wg.Go(func() { s.write(id, o) })
	return o
}

// take removes the most urgent frame.
func (s *streams) take(o *outgoing) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range o.frames {
		if q := o.frames[u]; len(q) > 0 {
			o.frames[u] = q[1:]
			o.bytes[u] -= len(q[0])
			return q[0]
		}
	}
	return nil
}

// write is the goroutine of one peer: it opens a stream when there is
// something to send and none is open, and ends when there was nothing for a
// while.
func (s *streams) write(id string, o *outgoing) {
	idle := time.NewTimer(idleStream)
	defer idle.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-idle.C:
			if s.retire(id, o) {
				return
			}
			idle.Reset(idleStream)
			continue
		case <-o.ready:
		}
		idle.Reset(idleStream)
		for body := s.take(o); body != nil; body = s.take(o) {
			if err := s.deliver(id, o, packFrame(body, s.compress)); err != nil {
				s.dropped(openReason(err))
				s.forget(o)
				if !s.pause(redial) {
					return
				}
				break
			}
		}
	}
}

// deliver writes a frame, on a new stream if there is none or the one there was
// turns out to be broken.
func (s *streams) deliver(id string, o *outgoing, frame []byte) error {
	for fresh := false; ; {
		s.mu.Lock()
		st := o.cur
		s.mu.Unlock()
		if st == nil {
			var err error
			if st, err = s.dialPeer(id); err != nil {
				return err
			}
			fresh = true
		}
		_ = st.tls.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := st.tls.Write(frame)
		if err == nil {
			return nil
		}
		s.drop(st)
		if fresh {
			return err
		}
	}
}

func openReason(err error) string {
	if errors.Is(err, errProof) {
		return "proof"
	}
	return "unreachable"
}

// dialPeer opens a stream to a peer.
func (s *streams) dialPeer(id string) (*stream, error) {
	addr, ok := s.addr(id)
	if !ok {
		return nil, errors.New("mesh: member has no address")
	}
	raw, err := s.dial(memberlist.Address{Addr: addr, Name: id}, handshakeTimeout)
	if err != nil {
		return nil, err
	}
	if !s.hold(raw) {
		return nil, ErrClosed
	}
	st, err := s.prove(raw, true, id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.wg.Go(func() { s.read(st) })
	return st, nil
}

// hold registers a connection, so that close ends it. It reports false, and
// closes the connection, if there are too many or no more are wanted.
func (s *streams) hold(raw net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= maxStreams {
		_ = raw.Close()
		return false
	}
	s.open[raw] = nil
	return true
}

// prove makes a held connection the stream of the peer that it proves to be.
// If want is not empty it must be that one.
func (s *streams) prove(raw net.Conn, client bool, want string) (*stream, error) {
	s.mu.Lock()
	ring := s.ring
	s.mu.Unlock()
	tc, peer, err := prove(raw, s.tls, client, s.id, s.label, ring)
	if err == nil && want != "" && peer.id != want {
		err = errProof // the address is another member's by now
	}
	st := &stream{raw: raw, tls: tc, peer: peer}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && (s.closed || !inRing(s.ring, peer.key)) {
		err = ErrClosed
	}
	if err != nil {
		delete(s.open, raw)
		_ = raw.Close()
		return nil, err
	}
	s.open[raw] = st
	o := s.out[peer.id]
	if o == nil {
		o = s.add(peer.id)
	}
	o.cur = st
	return st, nil
}

// drop closes a stream.
func (s *streams) drop(st *stream) {
	_ = st.raw.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, st.raw)
	if o := s.out[st.peer.id]; o != nil && o.cur == st {
		o.cur = nil
	}
}

func inRing(ring [][]byte, key []byte) bool {
	if len(ring) == 0 {
		return key == nil
	}
	return slices.ContainsFunc(ring, func(k []byte) bool { return slices.Equal(k, key) })
}

// forget drops what waits for a peer that cannot be reached.
func (s *streams) forget(o *outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range o.frames {
		o.frames[u], o.bytes[u] = nil, 0
	}
}

// retire ends an idle peer's goroutine and stream, unless something came
// meanwhile.
func (s *streams) retire(id string, o *outgoing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range o.frames {
		if len(q) > 0 {
			return false
		}
	}
	if o.cur != nil {
		_ = o.cur.raw.Close()
	}
	delete(s.out, id)
	return true
}

func (s *streams) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}

// accept takes over a connection that a peer opened.
func (s *streams) accept(raw net.Conn) {
	if !s.hold(raw) {
		s.dropped("busy")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.wg.Go(func() {
		st, err := s.prove(raw, false, "")
		if err != nil {
			s.dropped("proof")
			return
		}
		s.read(st)
	})
}

// read takes in frames until the stream ends.
func (s *streams) read(st *stream) {
	defer s.drop(st)
	for {
		frame, err := readFrame(st.tls)
		if errors.Is(err, errFrame) {
			s.dropped("malformed")
		}
		if err != nil {
			return
		}
		s.receive(st.peer.id, frame)
	}
}

// setRing replaces the keys. Streams whose key is gone end.
func (s *streams) setRing(ring [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring = ring
	for raw, st := range s.open {
		if st != nil && !inRing(ring, st.peer.key) {
			_ = raw.Close()
		}
	}
}

// close ends every stream and waits for the goroutines.
func (s *streams) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
		for raw := range s.open {
			_ = raw.Close()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}
