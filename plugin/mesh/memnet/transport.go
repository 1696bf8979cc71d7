package memnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Transport carries memberlist over a Host as it is: no encryption, no frame
// streams. It is cheaper than transport.Transport over the same Host, for runs
// with very many members.
type Transport struct {
	host     *Host
	addr     netip.AddrPort
	packets  PacketConn
	listener net.Listener
	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	ctx      context.Context
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// NewTransport opens a Transport on a port of a host; port 0 picks one.
func NewTransport(h *Host, port uint16) (*Transport, error) {
	ln, err := h.Listen(netip.AddrPortFrom(h.addr, port))
	if err != nil {
		return nil, err
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	pc, err := h.ListenPacket(at)
	if err != nil {
		ln.Close()
		return nil, err
	}
	t := &Transport{
		host: h, addr: at, packets: pc, listener: ln,
		packetCh: make(chan *memberlist.Packet), streamCh: make(chan net.Conn),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.done.Go(t.receive)
	t.done.Go(t.accept)
	return t, nil
}

// Addr returns the address of both sockets.
func (t *Transport) Addr() netip.AddrPort { return t.addr }

func (t *Transport) receive() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := t.packets.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		p := &memberlist.Packet{
			Buf: append([]byte(nil), buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now(),
		}
		select {
		case t.packetCh <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *Transport) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return
		}
		select {
		case t.streamCh <- conn:
		case <-t.ctx.Done():
			conn.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("member address: %w", err)
	}
	_, err = t.packets.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streamCh }

// DialTimeout implements memberlist.Transport.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return nil, fmt.Errorf("member address: %w", err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return t.host.Dial(ctx, to)
}

// Shutdown implements memberlist.Transport.
func (t *Transport) Shutdown() error {
	t.cancel()
	t.packets.Close()
	t.listener.Close()
	t.done.Wait()
	return nil
}
