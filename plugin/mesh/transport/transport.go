package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// MemberID names a member of the mesh: 1 to 64 bytes, the same as the Name it
// has in memberlist.
type MemberID string

// Config says how a Transport is reached and whom it talks to.
type Config struct {
	ID    MemberID
	Label string // cluster and cell; at most 255 bytes
	// Bind is the address of both sockets. Port 0 picks one port for both.
	Bind netip.AddrPort
	// Advertise is the address other members use. The zero value, or a zero
	// address or port in it, means the bound one.
	Advertise netip.AddrPort
	// Keyring encrypts packets and proves membership on streams; it may change
	// at any time. Nil means in clear and unproven, which New refuses on a bind
	// that is not loopback unless Insecure is set.
	Keyring  *Keyring
	Insecure bool
	// Allow is checked before a packet or stream is decoded, and before one is
	// sent. Empty allows every address.
	Allow AllowList
	// HandshakeTimeout bounds the time from accept or connect to the verified
	// hello; default 5 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds connections that have not proved anything yet, a
	// quarter of it from one address; default 256.
	MaxHandshakes int
	// MaxExchanges bounds the streams of memberlist that are open at once,
	// accepted ones only; default 256.
	MaxExchanges int
	// Network defaults to the operating system's.
	Network Network
	// Logger defaults to none. Drops are logged at debug level only: they are
	// counted.
	Logger *slog.Logger
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	c.HandshakeTimeout = positive(c.HandshakeTimeout, 5*time.Second)
	c.MaxHandshakes = positive(c.MaxHandshakes, 256)
	c.MaxExchanges = positive(c.MaxExchanges, 256)
	if c.Network == nil {
		c.Network = sockets{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func positive[T int | time.Duration | float64](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Validate returns why the configuration cannot be used, naming what is wrong.
func (c *Config) Validate() error {
	if len(c.ID) == 0 || len(c.ID) > maxMemberID {
		return fmt.Errorf("id has %d bytes: a member id has 1 to %d", len(c.ID), maxMemberID)
	}
	if err := checkLabel(c.Label); err != nil {
		return fmt.Errorf("label: %w", err)
	}
	if !c.Bind.Addr().IsValid() {
		return errors.New("bind is not set: use for example 127.0.0.1:7946")
	}
	if c.Keyring == nil && !c.Insecure && !c.Bind.Addr().IsLoopback() {
		return fmt.Errorf("bind %s is not loopback and there is no key: set a key, or allow it as insecure", c.Bind)
	}
	return nil
}

// Transport is the network of one member: a packet socket and a listener on
// one port, for memberlist and for frame streams. It is safe for concurrent
// use. memberlist's own Label, SecretKey, Keyring and CIDRsAllowed must be left
// empty: the Transport does their work for packets and streams alike.
type Transport struct {
	cfg       Config
	log       *slog.Logger
	tls       *tls.Config
	nonce     [8]byte // of this process, in every hello
	packets   PacketConn
	listener  net.Listener
	advertise netip.AddrPort
	sealer    *sealer
	opener    *opener // of the packet loop
	count     counters

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn

	ctx       context.Context // ends with Shutdown
	cancel    context.CancelFunc
	done      sync.WaitGroup
	admission admission
	exchanges chan struct{} // one token for each accepted stream of memberlist

	mu      sync.Mutex // guards streams
	streams *Streams   // nil before NewStreams
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// New opens the sockets and begins to receive. The caller ends it with
// Shutdown, as memberlist does in its own.
func New(cfg Config) (*Transport, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("mesh transport: %w", err)
	}
	conf, err := newTLSConfig()
	if err != nil {
		return nil, fmt.Errorf("mesh transport: %w", err)
	}
	pc, ln, err := bind(cfg.Network, cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("mesh transport: %w", err)
	}
	adv, err := advertised(cfg.Advertise, addrPortOf(ln.Addr()))
	if err != nil {
		pc.Close()
		ln.Close()
		return nil, fmt.Errorf("mesh transport: %w", err)
	}
	t := &Transport{
		cfg: cfg, log: cfg.Logger, tls: conf, packets: pc, listener: ln, advertise: adv,
		sealer:    newSealer(cfg.Label, cfg.Keyring),
		packetCh:  make(chan *memberlist.Packet, 64),
		streamCh:  make(chan net.Conn),
		exchanges: make(chan struct{}, cfg.MaxExchanges),
		admission: admission{max: cfg.MaxHandshakes, maxEach: max(1, cfg.MaxHandshakes/4)},
	}
	rand.Read(t.nonce[:]) // never fails
	t.opener = newOpener(t.sealer)
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.done.Go(t.receivePackets)
	t.done.Go(t.acceptStreams)
	return t, nil
}

// Addr returns the address other members reach this one at.
func (t *Transport) Addr() netip.AddrPort { return t.advertise }

// PacketOverhead returns how many bytes are added to a packet of memberlist
// now; set its UDPBufferSize to the wanted packet size less this.
func (t *Transport) PacketOverhead() int { return t.sealer.overhead() }

// Stats returns what was counted so far.
func (t *Transport) Stats() Stats {
	s := t.count.load()
	s.Handshakes = t.admission.pending()
	t.mu.Lock()
	streams := t.streams
	t.mu.Unlock()
	if streams != nil {
		s.Streams, s.QueueBytes = streams.gauges()
	}
	return s
}

// FinalAdvertiseAddr implements memberlist.Transport. The address of the
// Config counts; ip and port are used only where that left them open.
func (t *Transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	adv := t.advertise
	if ip != "" && !t.cfg.Advertise.Addr().IsValid() {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, 0, fmt.Errorf("advertise address: %w", err)
		}
		if port <= 0 || port > 65535 {
			port = int(adv.Port())
		}
		adv = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return adv.Addr().AsSlice(), int(adv.Port()), nil
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// StreamCh implements memberlist.Transport. The connections are verified.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streamCh }

// DialTimeout implements memberlist.Transport.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. It returns once
// the far end has proved a key. If the address has a name, another member
// there is an error.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ap, err := parseAddr(a.Addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return t.open(ctx, ap, kindMemberlist, MemberID(a.Name))
}

// open dials and runs the handshake.
func (t *Transport) open(ctx context.Context, ap netip.AddrPort, k kind, want MemberID) (*session, error) {
	if !t.cfg.Allow.Allows(ap.Addr()) {
		return nil, refuse(ReasonCIDR, "dial %s: the address is not in the allow list", ap)
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	conn, err := t.cfg.Network.Dial(ctx, ap)
	if err != nil {
		return nil, refuse(ReasonUnreachable, "dial %s: %w", ap, err)
	}
	// A handshake that waits ends with the Transport.
	stop := context.AfterFunc(t.ctx, func() { conn.Close() })
	defer stop()
	deadline, _ := ctx.Deadline()
	s, err := t.dialHandshake(conn, k, want, deadline)
	if err != nil {
		return nil, err
	}
	t.count.dials.Add(1)
	return s, nil
}

// Shutdown implements memberlist.Transport: it closes sockets and streams and
// waits for their goroutines, which takes a bounded time. Calling it again
// does nothing.
func (t *Transport) Shutdown() error {
	t.mu.Lock()
	streams := t.streams
	t.mu.Unlock()
	if streams != nil {
		streams.Close() // first, so that the peers are told
	}
	t.cancel()
	t.packets.Close()
	t.listener.Close()
	t.done.Wait()
	return nil
}

// parseAddr reads an address and port; names are not looked up here.
func parseAddr(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, fmt.Errorf("member address: %w", err)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// admission bounds the connections that have not proved anything.
type admission struct {
	max, maxEach int

	mu   sync.Mutex // guards all and each
	all  int
	each map[netip.Addr]int
}

// enter reports whether one more connection from an address is taken; leave
// ends it.
func (a *admission) enter(from netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all >= a.max || a.each[from] >= a.maxEach {
		return false
	}
	if a.each == nil {
		a.each = make(map[netip.Addr]int)
	}
	a.all++
	a.each[from]++
	return true
}

func (a *admission) leave(from netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all--
	if a.each[from]--; a.each[from] == 0 {
		delete(a.each, from)
	}
}

func (a *admission) pending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// String returns id and address, for logs.
func (t *Transport) String() string {
	return string(t.cfg.ID) + "@" + net.JoinHostPort(t.advertise.Addr().String(), strconv.Itoa(int(t.advertise.Port())))
}
