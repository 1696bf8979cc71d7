package raftnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/agent/pki"
)

// Bounds of connections that have not shown yet that they are Raft's.
const (
	handshakeTimeout = 5 * time.Second
	maxPending       = 256
	maxPendingPerIP  = 32
)

// protocol is what is spoken inside TLS (ALPN, RFC 7301).
const protocol = "fluid-raft/1"

// Remote is where a server is, and its name (RAFT_ID) if that is known.
type Remote struct {
	Addr string // HOST:PORT
	Name string
}

// Config says how a Layer connects.
type Config struct {
	// Listener is where the others connect. New takes it over, if it succeeds.
	Listener net.Listener
	// Advertise is the HOST:PORT that the others are told. Default: that of
	// Listener.
	Advertise string
	// Self is this server: its random id, and its RAFT_ID.
	Self pki.Identity
	// Cluster returns the cluster id, "" while it is not known; then any
	// cluster's servers that know the random id of this one are accepted.
	Cluster func() string
	// Resolve returns where a server is by the latest configuration of Raft.
	// It must not block, for it is called for every RPC, and not call the
	// transport. It is never asked for Self.
	Resolve func(raft.ServerID) (Remote, bool)
	// TLS holds certificates; nil: plain TCP.
	TLS *pki.Reloader
	// Dial opens a TCP connection. Default: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log gets what is refused, at most one line a second.
	Log *slog.Logger
}

// Layer is one server's end of all connections between Raft servers. All
// methods may be called from any goroutine.
type Layer struct {
	cfg       Config
	advertise raft.ServerAddress
	ready     chan net.Conn // shaken hands, for Accept
	ctx       context.Context
	cancel    context.CancelFunc
	loops     sync.WaitGroup
	quiet     throttle
	accepted  atomic.Uint64
	refused   atomic.Uint64

	mu      sync.Mutex // guards what follows
	closed  bool
	open    map[net.Conn]struct{} // every connection, both ways
	pending map[netip.Addr]int    // in their handshake, by host
	waiting int                   // sum of pending
}

var (
	_ raft.StreamLayer           = (*Layer)(nil)
	_ raft.ServerAddressProvider = (*Layer)(nil)
)

// New starts to accept connections.
func New(cfg Config) (*Layer, error) {
	if cfg.Self.ID == "" {
		return nil, errors.New("raftnet: the server has no id")
	}
	if cfg.TLS != nil {
		if err := cfg.TLS.Check(cfg.Self); err != nil {
			return nil, fmt.Errorf("certificate of Raft: %w", err)
		}
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.Advertise == "" {
		cfg.Advertise = cfg.Listener.Addr().String()
	}
	if host, _, err := net.SplitHostPort(cfg.Advertise); err == nil {
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			return nil, fmt.Errorf("raftnet: others cannot reach %s: give the address to advertise (RAFT_ADVERTISE)", cfg.Advertise)
		}
	}
	l := &Layer{
		cfg: cfg, advertise: raft.ServerAddress(cfg.Advertise), ready: make(chan net.Conn),
		open: map[net.Conn]struct{}{}, pending: map[netip.Addr]int{},
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.loops.Go(l.listen)
	return l, nil
}

// Stats counts connections.
type Stats struct {
	Accepted uint64 // from other servers, since New
	Refused  uint64 // from whomever, since New
	Pending  int    // in their handshake now
	Open     int    // both ways, now
}

// Stats returns the counts.
func (l *Layer) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Accepted: l.accepted.Load(), Refused: l.refused.Load(), Pending: l.waiting, Open: len(l.open)}
}

// Addr implements net.Listener: the address that other servers are told.
func (l *Layer) Addr() net.Addr { return address(l.advertise) }

// Accept implements net.Listener. It returns connections of servers that want
// this one, and have proven who they are where there is TLS.
func (l *Layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the listener and every connection of the layer, also those that
// Accept and Dial returned, and waits until nothing of it runs. Later calls
// return nil.
func (l *Layer) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	open := make([]net.Conn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	clear(l.open)
	l.mu.Unlock()
	l.cancel()
	err := l.cfg.Listener.Close()
	for _, c := range open {
		_ = c.Close() // a broken connection has nothing to tell
	}
	l.loops.Wait()
	return err
}

// track makes c known to Close. It returns false, and closes c, if the layer is
// closed already.
func (l *Layer) track(c net.Conn) (*conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, false
	}
	l.open[c] = struct{}{}
	return &conn{Conn: c, layer: l, raw: c}, true
}

// conn is a connection that Close knows.
type conn struct {
	net.Conn // plain, or TLS over raw
	layer    *Layer
	raw      net.Conn
}

// Close closes the TCP connection; it sends no farewell, which could block.
func (c *conn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.open, c.raw)
	c.layer.mu.Unlock()
	return c.raw.Close()
}

// address is HOST:PORT as a net.Addr.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// throttle lets one log line a second through and counts the others.
type throttle struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

func (t *throttle) pass(now time.Time) (skipped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.last) < time.Second {
		t.skipped++
		return 0, false
	}
	skipped, t.last, t.skipped = t.skipped, now, 0
	return skipped, true
}
