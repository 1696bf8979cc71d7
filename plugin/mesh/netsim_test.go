package mesh_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// network is an in-memory network for real memberlists: packets may be lost,
// pairs of hosts cut. It works in fake time.
type network struct {
	mu    sync.Mutex // guards what is below
	ports map[string]*port
	cut   map[[2]string]bool
	loss  float64
	conns []*pairConn
}

func newNetwork() *network {
	return &network{ports: map[string]*port{}, cut: map[[2]string]bool{}}
}

// port is one member's transport.
type port struct {
	net     *network
	addr    *net.TCPAddr
	packets chan *memberlist.Packet
	streams chan net.Conn
	stop    chan struct{}
	once    sync.Once
}

var _ memberlist.NodeAwareTransport = (*port)(nil)

func (n *network) listen() *port {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := len(n.ports) + 1
	p := &port{
		net: n, addr: &net.TCPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 7946},
		packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 64), stop: make(chan struct{}),
	}
	n.ports[p.addr.String()] = p
	return p
}

// reach returns the port behind an address, if the caller can reach it.
func (p *port) reach(addr string) *port {
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.ports[addr]
	if to == nil || n.cut[[2]string{p.addr.String(), addr}] {
		return nil
	}
	select {
	case <-to.stop:
		return nil
	case <-p.stop:
		return nil
	default:
		return to
	}
}

// setCut cuts, or joins again, each pair of addresses. Streams across the cut
// break.
func (n *network) setCut(a, b []string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range a {
		for _, y := range b {
			for _, pair := range [][2]string{{x, y}, {y, x}} {
				n.cut[pair] = cut
			}
		}
	}
	for _, c := range n.conns {
		if n.cut[[2]string{c.from, c.to}] {
			_ = c.Close()
		}
	}
}

func (n *network) healAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.addr.IP, p.addr.Port, nil
}

func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	to := p.reach(addr)
	if to == nil || rand.Float64() < p.net.lossRate() {
		return time.Now(), nil
	}
	select {
	case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: p.addr, Timestamp: time.Now()}:
	default:
	}
	return time.Now(), nil
}

func (n *network) setLoss(rate float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = rate
}

func (n *network) lossRate() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.loss
}

func (p *port) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return p.WriteTo(b, a.Addr)
}

func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *port) StreamCh() <-chan net.Conn           { return p.streams }

func (p *port) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	to := p.reach(addr)
	if to == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, errors.New("unreachable"))
	}
	a, b := net.Pipe()
	here := &pairConn{Conn: a, from: p.addr.String(), to: addr, remote: to.addr}
	there := &pairConn{Conn: b, from: addr, to: p.addr.String(), remote: p.addr}
	p.net.mu.Lock()
	p.net.conns = append(p.net.conns, here, there)
	p.net.mu.Unlock()
	select {
	case to.streams <- there:
		return here, nil
	case <-to.stop:
		return nil, errors.New("closed")
	}
}

func (p *port) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return p.DialTimeout(a.Addr, d)
}

func (p *port) Shutdown() error {
	p.once.Do(func() { close(p.stop) })
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	for _, c := range p.net.conns { // as a process that ends would
		if c.from == p.addr.String() {
			_ = c.Close()
		}
	}
	return nil
}

type pairConn struct {
	net.Conn
	from, to string
	remote   net.Addr
}

func (c *pairConn) RemoteAddr() net.Addr { return c.remote }
