package mesh

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// sockets is a memberlist transport over UDP and TCP on one port. Unlike the
// library's own it copies packets out of one buffer instead of handing on
// 64 KiB each.
type sockets struct {
	udp      *net.UDPConn
	tcp      *net.TCPListener
	packets  chan *memberlist.Packet
	streams  chan net.Conn
	stop     chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*sockets)(nil)

const bindTries = 16 // for a port that is free for both protocols

// listen binds UDP and TCP to the same port.
func listen(bind string) (*sockets, error) {
	var errs []error
	for range bindTries {
		l, err := net.Listen("tcp", bind) //nolint:noctx // binding a local port does not wait
		if err != nil {
			return nil, err
		}
		tcp := l.(*net.TCPListener)
		at := tcp.Addr().(*net.TCPAddr)
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
		if err == nil {
			_ = udp.SetReadBuffer(2 << 20)
			return &sockets{
				udp: udp, tcp: tcp, stop: make(chan struct{}),
				packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn),
			}, nil
		}
		_ = tcp.Close()
		errs = append(errs, err)
		if _, port, _ := net.SplitHostPort(bind); port != "0" {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (s *sockets) start() {
	s.wg.Go(s.readPackets)
	s.wg.Go(s.accept)
}

func (s *sockets) readPackets() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := s.udp.ReadFromUDP(buf)
		now := time.Now()
		select {
		case <-s.stop:
			return
		default:
		}
		if err != nil || n == 0 {
			continue
		}
		select {
		case s.packets <- &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: now}:
		default: // the library is behind; gossip repairs
		}
	}
}

func (s *sockets) accept() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			select {
			case <-s.stop:
				return
			case <-time.After(10 * time.Millisecond): // out of file descriptors, most likely
				continue
			}
		}
		select {
		case s.streams <- conn:
		case <-s.stop:
			_ = conn.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (s *sockets) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	at := s.tcp.Addr().(*net.TCPAddr)
	if ip != "" {
		addr := net.ParseIP(ip)
		if addr == nil {
			return nil, 0, fmt.Errorf("advertise address %q is not an IP address", ip)
		}
		if port == 0 {
			port = at.Port
		}
		return addr, port, nil
	}
	if !at.IP.IsUnspecified() {
		return at.IP, at.Port, nil
	}
	addr, err := outwardIP()
	return addr, at.Port, err
}

// outwardIP returns an address of this host that others can reach.
func outwardIP() (net.IP, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP, nil
		}
	}
	return nil, errors.New("no address to advertise; set one")
}

// WriteTo implements memberlist.Transport.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = s.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (s *sockets) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return s.WriteTo(b, addr.Addr)
}

// PacketCh implements memberlist.Transport.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh implements memberlist.Transport.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// DialTimeout implements memberlist.Transport.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout) //nolint:noctx // the interface has no context
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (s *sockets) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return s.DialTimeout(addr.Addr, timeout)
}

// Shutdown implements memberlist.Transport.
func (s *sockets) Shutdown() error {
	s.stopOnce.Do(func() {
		close(s.stop)
		_ = s.tcp.Close()
		_ = s.udp.Close()
	})
	s.wg.Wait()
	return nil
}

// mux divides what comes to one port: memberlist's packets and streams, and
// Fluid's own streams, which begin with a TLS handshake. What comes from
// outside the allowed networks it drops.
type mux struct {
	memberlist.NodeAwareTransport
	allow   []netip.Prefix
	dropped func(reason string)
	packets chan *memberlist.Packet
	streams chan net.Conn
	own     func(net.Conn) // takes over a stream of Fluid's; must not block
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup

	mu      sync.Mutex // guards what is below
	peeking map[net.Conn]bool
}

const (
	tlsHandshake = 0x16 // first byte of a TLS record (RFC 8446 section 5.1); no memberlist message has it
	peekTimeout  = 5 * time.Second
	maxPeeking   = 256 // streams that did not say yet what they are
)

func newMux(base memberlist.NodeAwareTransport, allow []netip.Prefix, dropped func(string), own func(net.Conn)) *mux {
	return &mux{
		NodeAwareTransport: base, allow: allow, dropped: dropped, own: own, stop: make(chan struct{}),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), peeking: map[net.Conn]bool{},
	}
}

func (x *mux) start() {
	x.wg.Go(func() {
		in := x.NodeAwareTransport.PacketCh()
		for {
			select {
			case p := <-in:
				if !x.allowed(p.From) {
					x.dropped("network")
					continue
				}
				select {
				case x.packets <- p:
				case <-x.stop:
					return
				}
			case <-x.stop:
				return
			}
		}
	})
	x.wg.Go(func() {
		in := x.NodeAwareTransport.StreamCh()
		slots := make(chan struct{}, maxPeeking)
		for {
			select {
			case conn := <-in:
				if !x.allowed(conn.RemoteAddr()) {
					x.dropped("network")
					_ = conn.Close()
					continue
				}
				select {
				case slots <- struct{}{}:
					x.wg.Go(func() {
						defer func() { <-slots }()
						x.divide(conn)
					})
				default:
					x.dropped("busy")
					_ = conn.Close()
				}
			case <-x.stop:
				return
			}
		}
	})
}

func (x *mux) allowed(a net.Addr) bool {
	if len(x.allow) == 0 {
		return true
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	for _, p := range x.allow {
		if p.Contains(ap.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// divide looks at the first byte of a stream.
func (x *mux) divide(conn net.Conn) {
	r := bufio.NewReaderSize(conn, 16)
	x.mu.Lock()
	x.peeking[conn] = true
	x.mu.Unlock()
	_ = conn.SetReadDeadline(time.Now().Add(peekTimeout))
	first, err := r.Peek(1)
	_ = conn.SetReadDeadline(time.Time{})
	x.mu.Lock()
	delete(x.peeking, conn)
	x.mu.Unlock()
	if err != nil {
		_ = conn.Close()
		return
	}
	peeked := &peekedConn{Conn: conn, r: r}
	if first[0] == tlsHandshake {
		x.own(peeked)
		return
	}
	select {
	case x.streams <- peeked:
	case <-x.stop:
		_ = conn.Close()
	}
}

// peekedConn is a connection of which some bytes were read ahead.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *peekedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// PacketCh implements memberlist.Transport.
func (x *mux) PacketCh() <-chan *memberlist.Packet { return x.packets }

// StreamCh implements memberlist.Transport.
func (x *mux) StreamCh() <-chan net.Conn { return x.streams }

// Shutdown implements memberlist.Transport.
func (x *mux) Shutdown() error {
	err := x.NodeAwareTransport.Shutdown()
	x.once.Do(func() { close(x.stop) })
	x.mu.Lock()
	for conn := range x.peeking {
		_ = conn.Close()
	}
	x.mu.Unlock()
	x.wg.Wait()
	return err
}
