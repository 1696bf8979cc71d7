package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// sendBuffer is how many bytes are on the way in one direction of a stream
// before a write waits.
const sendBuffer = 256 << 10

// half is one direction of a stream: what one side writes and the other reads.
type half struct {
	net      *Network
	from, to netip.Addr

	mu       sync.Mutex // guards what follows
	cond     *sync.Cond // something in here has changed, or a deadline has come
	flight   []byte     // written, not arrived
	arrived  []byte     // not read
	carrying bool       // a timer carries the flight
	finished bool       // nothing more is written
	ended    bool       // and all of it has arrived
	broken   bool       // the reader is gone
	readBy   deadline
	writeBy  deadline
}

func newHalf(n *Network, from, to netip.Addr) *half {
	h := &half{net: n, from: from, to: to}
	h.cond = sync.NewCond(&h.mu)
	return h
}

// deadline wakes who waits on a half when it comes. The half's mu guards it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(h *half, at time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), h.wake)
	}
	h.cond.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cond.Broadcast()
}

func (h *half) write(b []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(b) > 0 {
		switch {
		case h.finished:
			return n, net.ErrClosed
		case h.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		case h.broken:
			return n, syscall.ECONNRESET
		case len(h.flight)+len(h.arrived) >= sendBuffer:
			h.cond.Wait()
			continue
		}
		k := min(len(b), sendBuffer-len(h.flight)-len(h.arrived))
		h.flight = append(h.flight, b[:k]...)
		b, n = b[k:], n+k
		h.carry(retransmit)
	}
	return n, nil
}

// carry sends all that is written as one segment, unless one is on the way. A
// segment that is lost is sent again after wait, longer each time. The caller
// holds mu.
func (h *half) carry(wait time.Duration) {
	if h.carrying || (len(h.flight) == 0 && !h.finished) {
		return
	}
	h.carrying = true
	d, ok := h.net.attempt(h.from, h.to)
	if !ok {
		time.AfterFunc(wait, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.carrying = false
			if !h.broken {
				h.carry(min(2*wait, retransmitMax))
			}
		})
		return
	}
	n, last := len(h.flight), h.finished
	time.AfterFunc(d, func() { h.arrive(n, last) })
}

// arrive makes n bytes readable, and the end of the stream if last.
func (h *half) arrive(n int, last bool) {
	h.net.mu.Lock()
	h.net.stats.StreamBytes += uint64(n)
	h.net.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.carrying = false
	if h.broken {
		return
	}
	h.arrived = append(h.arrived, h.flight[:n]...)
	h.flight = append(h.flight[:0], h.flight[n:]...)
	h.ended = last
	h.cond.Broadcast()
	if !h.ended {
		h.carry(retransmit)
	}
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(h.arrived) > 0 || len(b) == 0:
			n := copy(b, h.arrived)
			h.arrived = append(h.arrived[:0], h.arrived[n:]...)
			h.cond.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

// finish ends the writing side; what was written still arrives.
func (h *half) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.finished {
		h.finished = true
		h.writeBy.set(h, time.Time{})
		h.carry(retransmit)
	}
}

// abandon ends the reading side; writes fail from now on.
func (h *half) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = true
	h.arrived, h.flight = nil, h.flight[:0:0]
	h.readBy.set(h, time.Time{})
}

// Conn is one end of a stream.
type Conn struct {
	in, out     *half
	local, peer netip.AddrPort
}

var _ net.Conn = (*Conn)(nil)

// newPair returns both ends of a stream that the host at a opened to b.
func newPair(n *Network, a, b netip.AddrPort) (near, far *Conn) {
	there, back := newHalf(n, a.Addr(), b.Addr()), newHalf(n, b.Addr(), a.Addr())
	return &Conn{in: back, out: there, local: a, peer: b}, &Conn{in: there, out: back, local: b, peer: a}
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) { return c.in.read(b) }

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) { return c.out.write(b) }

// Close implements net.Conn. What was written still arrives.
func (c *Conn) Close() error {
	c.out.finish()
	c.in.abandon()
	return nil
}

// CloseWrite ends the writing direction.
func (c *Conn) CloseWrite() error {
	c.out.finish()
	return nil
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.peer) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.readBy.set(c.in, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.writeBy.set(c.out, t)
	return nil
}
