package memnet

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// receiveQueue is how many packets wait for a reader before more are lost.
const receiveQueue = 4096

// PacketConn is a packet socket of a Host.
type PacketConn = interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

// ListenPacket opens a packet socket on the host. The address must be the
// host's or unspecified; port 0 picks a free port.
func (h *Host) ListenPacket(at netip.AddrPort) (PacketConn, error) {
	if at.Addr() != h.addr && !at.Addr().IsUnspecified() {
		return nil, fmt.Errorf("listen on %s: %w", at, syscall.EADDRNOTAVAIL)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	port, err := h.port(at.Port(), func(p uint16) bool { return h.packets[p] != nil })
	if err != nil {
		return nil, err
	}
	c := &packetConn{
		host: h, addr: netip.AddrPortFrom(h.addr, port),
		received: make(chan datagram, receiveQueue), closed: make(chan struct{}),
	}
	h.packets[port] = c
	return c, nil
}

type datagram struct {
	from netip.AddrPort
	data []byte
}

type packetConn struct {
	host     *Host
	addr     netip.AddrPort
	received chan datagram
	once     sync.Once
	closed   chan struct{}
}

// ReadFromUDPAddrPort waits for a packet; what does not fit into b is lost.
func (c *packetConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-c.received:
		return copy(b, d.data), d.from, nil
	case <-c.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteToUDPAddrPort sends a packet and never waits.
func (c *packetConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	n := c.host.net
	n.mu.Lock()
	n.stats.Packets++
	n.stats.PacketBytes += uint64(len(b))
	ok := n.reaches(c.addr.Addr(), to.Addr()) && !n.lost()
	if !ok {
		n.stats.Lost++
	}
	d := n.delay()
	n.mu.Unlock()
	if ok {
		data := bytes.Clone(b)
		time.AfterFunc(d, func() { n.deliver(datagram{c.addr, data}, to) })
	}
	return len(b), nil
}

// deliver puts a packet into the socket it is for, if that is there, has room
// and can still be reached.
func (n *Network) deliver(d datagram, to netip.AddrPort) {
	n.mu.Lock()
	h, ok := n.hosts[to.Addr()], n.reaches(d.from.Addr(), to.Addr())
	n.mu.Unlock()
	if h == nil || !ok {
		return
	}
	h.mu.Lock()
	c := h.packets[to.Port()]
	h.mu.Unlock()
	if c == nil {
		return
	}
	select {
	case c.received <- d:
	default:
		n.mu.Lock()
		n.stats.Lost++
		n.mu.Unlock()
	}
}

// LocalAddr returns the address of the socket.
func (c *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

// Close ends the socket.
func (c *packetConn) Close() error {
	c.once.Do(func() {
		c.host.mu.Lock()
		delete(c.host.packets, c.addr.Port())
		c.host.mu.Unlock()
		close(c.closed)
	})
	return nil
}
