package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Network is where a Transport finds its sockets. The zero Config uses the one
// of the operating system; package memnet has one in memory.
type Network interface {
	// ListenPacket opens a packet socket. Port 0 picks a free port.
	ListenPacket(addr netip.AddrPort) (PacketConn, error)
	// Listen opens a stream listener. Port 0 picks a free port.
	Listen(addr netip.AddrPort) (net.Listener, error)
	// Dial opens a stream. It returns when ctx ends at the latest.
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// PacketConn is what a Transport needs of a packet socket; *net.UDPConn is one.
type PacketConn = interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

// sockets is the Network of the operating system.
type sockets struct{}

var _ Network = sockets{}

// receiveBuffer is the wished size of the UDP receive buffer; the kernel may
// grant less.
const receiveBuffer = 2 << 20

func (sockets) ListenPacket(addr netip.AddrPort) (PacketConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	for size := receiveBuffer; size > 64<<10; size /= 2 {
		if c.SetReadBuffer(size) == nil {
			break
		}
	}
	return c, nil
}

func (sockets) Listen(addr netip.AddrPort) (net.Listener, error) {
	return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
}

func (sockets) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr.String())
}

// bindTries is how often both sockets are tried on a port the kernel picked:
// it picks for TCP, and UDP may have the port already.
const bindTries = 16

// bind opens the packet socket and the listener on one port.
func bind(n Network, addr netip.AddrPort) (PacketConn, net.Listener, error) {
	for try := 1; ; try++ {
		ln, err := n.Listen(addr)
		if err != nil {
			return nil, nil, fmt.Errorf("listen on tcp %s: %w", addr, err)
		}
		at := netip.AddrPortFrom(addr.Addr(), addrPortOf(ln.Addr()).Port())
		pc, err := n.ListenPacket(at)
		if err == nil {
			return pc, ln, nil
		}
		ln.Close()
		if addr.Port() != 0 || try == bindTries || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, fmt.Errorf("listen on udp %s: %w", at, err)
		}
	}
}

// advertised returns the address other members reach this one at: the one
// given, else the one bound, else an address of an interface, private ones
// first.
func advertised(given, bound netip.AddrPort) (netip.AddrPort, error) {
	port := given.Port()
	if port == 0 {
		port = bound.Port()
	}
	addr := given.Addr()
	if !addr.IsValid() {
		addr = bound.Addr()
	}
	if addr.IsUnspecified() {
		found, err := interfaceAddr(addr.Is6())
		if err != nil {
			return netip.AddrPort{}, err
		}
		addr = found
	}
	return netip.AddrPortFrom(addr.Unmap(), port), nil
}

func interfaceAddr(v6 bool) (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list interface addresses: %w", err)
	}
	if a, ok := pickAddr(addrs, v6); ok {
		return a, nil
	}
	return netip.Addr{}, errors.New("no interface has an address other members could reach: set the advertise address")
}

// pickAddr chooses among interface addresses: private IPv4, other IPv4, and
// where the bind is IPv6 also private and other IPv6, in this order.
func pickAddr(addrs []net.Addr, v6 bool) (best netip.Addr, ok bool) {
	rank := 4
	for _, a := range addrs {
		ipn, isNet := a.(*net.IPNet)
		if !isNet {
			continue
		}
		ip, valid := netip.AddrFromSlice(ipn.IP)
		ip = ip.Unmap()
		if !valid || !ip.IsGlobalUnicast() || (ip.Is6() && !v6) {
			continue
		}
		r := 0
		if ip.Is6() {
			r = 2
		}
		if !ip.IsPrivate() {
			r++
		}
		if r < rank {
			best, rank, ok = ip, r, true
		}
	}
	return best, ok
}
