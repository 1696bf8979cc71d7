package transport

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
)

// panicky is the operating system's network, but for reads that panic, as one
// of bytes that a decoder does not survive would.
type panicky struct {
	sockets
	dialing, accepting, running atomic.Bool
}

func (p *panicky) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	c, err := p.sockets.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &panickyConn{c, &p.dialing, &p.running}, nil
}

func (p *panicky) Listen(addr netip.AddrPort) (net.Listener, error) {
	l, err := p.sockets.Listen(addr)
	return panickyListener{l, p}, err
}

type panickyListener struct {
	net.Listener
	p *panicky
}

func (l panickyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &panickyConn{c, &l.p.accepting, &l.p.running}, nil
}

type panickyConn struct {
	net.Conn
	early, running *atomic.Bool
}

func (c *panickyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.early.Swap(false) || n > 0 && c.running.Swap(false) {
		panic("test")
	}
	return n, err
}

// TestPanicsAreContained: a panic while bytes of another member are read costs
// a stream, not the process, and is counted.
func TestPanicsAreContained(t *testing.T) {
	var at book
	wild := &panicky{}
	a := newMember(t, &at, Config{ID: "a", Network: wild, Keyring: testRing(t, 1)}, nil)
	b := newMember(t, &at, Config{ID: "b", Keyring: testRing(t, 1)}, nil)
	counted := func() uint64 {
		s := a.Streams.t.Stats()
		return s.StreamDrops.Of(ReasonPanic) + s.Closes.Of(ReasonPanic)
	}
	reaches := func(what string, from, to *member, id MemberID, panics uint64) {
		t.Helper()
		before := to.total()
		eventually(t, what, func() bool {
			from.Send(id, []byte("frame"), Control)
			return to.total() > before && counted() == panics
		})
	}
	wild.dialing.Store(true)
	reaches("a frame of a at b after a panic while a dials", a, b, "b", 1)
	wild.running.Store(true)
	reaches("a frame of b at a after a panic on the open stream", b, a, "a", 2)
	wild.accepting.Store(true)
	c := newMember(t, &at, Config{ID: "c", Keyring: testRing(t, 1)}, nil)
	reaches("a frame of c at a after a panic while a accepts", c, a, "a", 3)
}
