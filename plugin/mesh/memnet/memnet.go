// Package memnet is a network in memory for tests: packets and streams between
// hosts, with delay, loss and partitions. Everything in it waits on channels,
// timers and condition variables only, so that it runs in a testing/synctest
// bubble, in which the network and all that use it must then be made; hours of
// a mesh of a hundred members pass in seconds.
//
// A packet is delivered after a delay, or lost. A stream keeps its bytes in
// order; loss delays them by retransmission timeouts, and while two hosts are
// parted the bytes wait, as with TCP. Randomness comes from a seed, but the
// order of goroutines does not: a seed does not replay a run.
package memnet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// retransmit is the first retransmission timeout of a stream; it doubles up to
// retransmitMax.
const (
	retransmit    = 200 * time.Millisecond
	retransmitMax = 3200 * time.Millisecond
)

// Network joins hosts. The zero value is not usable; see New.
type Network struct {
	mu       sync.Mutex // guards what follows
	rng      *rand.Rand
	hosts    map[netip.Addr]*Host
	min, max time.Duration
	loss     float64
	side     map[netip.Addr]int // partition each address is in, 0 if none was set
	cut      map[[2]netip.Addr]bool
	stats    Stats
}

// Stats counts what a Network carried.
type Stats struct {
	Packets, PacketBytes, Lost uint64 // Lost includes packets between parted hosts
	Dials, StreamBytes         uint64
}

// New returns a network without delay or loss.
func New(seed uint64) *Network {
	return &Network{
		rng:   rand.New(rand.NewPCG(seed, seed)),
		hosts: make(map[netip.Addr]*Host),
		side:  make(map[netip.Addr]int),
		cut:   make(map[[2]netip.Addr]bool),
	}
}

// SetDelay sets how long a packet or a segment of a stream takes: a random
// time in [least, most].
func (n *Network) SetDelay(least, most time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.min, n.max = least, max(least, most)
}

// SetLoss sets the probability in [0, 1] that a packet is lost, or that a
// segment must be sent again.
func (n *Network) SetLoss(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

// Partition puts hosts into groups that cannot reach each other. Hosts in no
// group form one of their own. Each call replaces the groups of the last one.
func (n *Network) Partition(groups ...[]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.side)
	for i, g := range groups {
		for _, a := range g {
			n.side[a] = i + 1
		}
	}
}

// Cut stops what goes from one host to another, in this direction only.
func (n *Network) Cut(from, to netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]netip.Addr{from, to}] = true
}

// Heal ends partitions and cuts.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.side)
	clear(n.cut)
}

// Stats returns what was carried so far.
func (n *Network) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// Host returns the host with an address, made on first use. Its methods are a
// transport.Network.
func (n *Network) Host(addr netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[addr]
	if h == nil {
		h = &Host{net: n, addr: addr, listeners: make(map[uint16]*listener), packets: make(map[uint16]*packetConn)}
		n.hosts[addr] = h
	}
	return h
}

// reaches reports whether packets go from one host to another. The caller
// holds mu.
func (n *Network) reaches(from, to netip.Addr) bool {
	return n.side[from] == n.side[to] && !n.cut[[2]netip.Addr{from, to}]
}

// delay draws the time of one packet or segment. The caller holds mu.
func (n *Network) delay() time.Duration {
	if n.max == n.min {
		return n.min
	}
	return n.min + time.Duration(n.rng.Int64N(int64(n.max-n.min)+1))
}

// lost draws whether a packet or segment is lost. The caller holds mu.
func (n *Network) lost() bool { return n.loss > 0 && n.rng.Float64() < n.loss }

// attempt draws the fate of a segment: it arrives after d, or not.
func (n *Network) attempt(from, to netip.Addr) (d time.Duration, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.delay(), n.reaches(from, to) && !n.lost()
}

// Host is one address of a Network.
type Host struct {
	net  *Network
	addr netip.Addr

	mu        sync.Mutex // guards what follows
	listeners map[uint16]*listener
	packets   map[uint16]*packetConn
	ephemeral uint16
}

// Addr returns the address of the host.
func (h *Host) Addr() netip.Addr { return h.addr }

// port returns the port asked for, or a free one for 0. The caller holds mu.
func (h *Host) port(p uint16, taken func(uint16) bool) (uint16, error) {
	if p != 0 {
		if taken(p) {
			return 0, fmt.Errorf("listen on %s: %w", netip.AddrPortFrom(h.addr, p), syscall.EADDRINUSE)
		}
		return p, nil
	}
	for range 1 << 14 {
		h.ephemeral = (h.ephemeral + 1) % (1 << 14)
		if p = 49152 + h.ephemeral; !taken(p) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("listen on %s: %w", h.addr, syscall.EADDRINUSE)
}

// Listen opens a stream listener on the host. The address must be the host's
// or unspecified; port 0 picks a free port.
func (h *Host) Listen(at netip.AddrPort) (net.Listener, error) {
	if at.Addr() != h.addr && !at.Addr().IsUnspecified() {
		return nil, fmt.Errorf("listen on %s: %w", at, syscall.EADDRNOTAVAIL)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	port, err := h.port(at.Port(), func(p uint16) bool { return h.listeners[p] != nil })
	if err != nil {
		return nil, err
	}
	l := &listener{
		host: h, addr: netip.AddrPortFrom(h.addr, port),
		accepted: make(chan net.Conn, 128), closed: make(chan struct{}),
	}
	h.listeners[port] = l
	return l, nil
}

// Dial opens a stream to a listener. It takes a round trip; while the hosts
// are parted it waits until ctx ends.
func (h *Host) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	h.net.mu.Lock()
	h.net.stats.Dials++
	h.net.mu.Unlock()
	for wait := retransmit; ; wait = min(2*wait, retransmitMax) {
		there, ok := h.net.attempt(h.addr, to.Addr())
		back, returned := h.net.attempt(to.Addr(), h.addr)
		if ok && returned {
			if err := sleep(ctx, there+back); err != nil {
				return fail(err)
			}
			break
		}
		if err := sleep(ctx, wait); err != nil {
			return fail(err)
		}
	}
	h.net.mu.Lock()
	peer := h.net.hosts[to.Addr()]
	h.net.mu.Unlock()
	if peer == nil {
		return fail(syscall.EHOSTUNREACH)
	}
	peer.mu.Lock()
	l := peer.listeners[to.Port()]
	peer.mu.Unlock()
	h.mu.Lock()
	port, err := h.port(0, func(uint16) bool { return false })
	h.mu.Unlock()
	if err != nil {
		return fail(err)
	}
	if l == nil {
		return fail(syscall.ECONNREFUSED)
	}
	near, far := newPair(h.net, netip.AddrPortFrom(h.addr, port), to)
	select {
	case l.accepted <- far:
		select {
		case <-l.closed:
			l.Close() // it may have emptied its queue before
		default:
		}
		return near, nil
	case <-l.closed:
		return fail(syscall.ECONNREFUSED)
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type listener struct {
	host     *Host
	addr     netip.AddrPort
	accepted chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Streams that were not accepted are closed.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.host.mu.Lock()
		delete(l.host.listeners, l.addr.Port())
		l.host.mu.Unlock()
		close(l.closed)
	})
	for {
		select {
		case c := <-l.accepted:
			c.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }
