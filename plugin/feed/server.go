package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
)

// ServerConfig is what a server needs. Source and Logger must be set.
type ServerConfig struct {
	Source         Source
	Relay          Relay  // nil: no client is relayed to
	Implementation string // of the agent's gossip: inmemory, memberlist or crdt
	Version        string // of the agent
	Peers          Peers
	MaxClients     int           // sessions at once; default 16
	Heartbeat      time.Duration // default DefaultHeartbeat
	HelloTimeout   time.Duration // until a client must have said hello; default 1 s
	Logger         *slog.Logger
}

// ServerStats counts what a server did. All counters only grow.
type ServerStats struct {
	Sessions  uint64 // accepted
	Refused   uint64 // refused, whatever the reason
	Snapshots uint64 // full snapshots sent
	Resumes   uint64 // sessions that went on where the client was
	Batches   uint64 // batches sent
	Behind    uint64 // times the server found itself behind a client
	BadAcks   uint64 // acknowledged positions above the known commit, ignored
}

// Server is the agent's end of the feed. Its methods may be called from
// several goroutines at once.
type Server struct {
	feedpb.UnimplementedFeedServer

	cfg     ServerConfig
	grpc    *grpc.Server
	slots   chan struct{}
	members *members
	part    int             // bytes after which a part is sent
	ctx     context.Context // ends with Stop
	stop    context.CancelFunc
	wg      sync.WaitGroup // receiving goroutines
	group   atomic.Int64   // of the socket; -1 if not known

	sessions, refused, snapshots, resumes, batches, behind, badAcks atomic.Uint64
}

// NewServer makes a server. It does nothing until Serve.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Source == nil || cfg.Logger == nil {
		return nil, errors.New("feed server: Source and Logger must be set")
	}
	if cfg.MaxClients <= 0 {
		cfg.MaxClients = 16
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = DefaultHeartbeat
	}
	if cfg.HelloTimeout <= 0 {
		cfg.HelloTimeout = time.Second
	}
	s := &Server{cfg: cfg, slots: make(chan struct{}, cfg.MaxClients), members: newMembers(4 * cfg.MaxClients), part: partBytes}
	s.group.Store(-1)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(2),
		grpc.ConnectionTimeout(2*time.Second),
		grpc.WaitForHandlers(true),
		// A peer that is stopped, or that connects and never asks, is let go.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 10 * time.Second,
			Time:              10 * time.Second,
			Timeout:           5 * time.Second,
		}),
	)
	feedpb.RegisterFeedServer(s.grpc, s)
	return s, nil
}

// Serve takes connections from l, usually of Listen, until Stop, and then
// returns nil. It closes l. Who may use the socket by its group may use the
// server.
func (s *Server) Serve(l net.Listener) error {
	if a, ok := l.Addr().(*net.UnixAddr); ok {
		if info, err := os.Stat(a.Name); err == nil {
			if gid, ok := groupOf(info); ok {
				s.group.Store(int64(gid))
			}
		}
	}
	err := s.grpc.Serve(&limited{Listener: l, left: int64(4 * s.cfg.MaxClients)})
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) && s.ctx.Err() == nil {
		return fmt.Errorf("feed: %w", err)
	}
	return nil
}

// Stop ends every session, closes the listener and waits for all goroutines.
// It may be called before Serve, and again.
func (s *Server) Stop() {
	s.stop()
	s.grpc.Stop()
	s.wg.Wait()
}

// Members returns the DNS members, sorted by id, that are or since the start
// were connected, and a channel that is closed when that next changes.
// Members that left are kept up to four times MaxClients.
func (s *Server) Members() ([]Member, <-chan struct{}) { return s.members.snapshot() }

// Stats returns the counters.
func (s *Server) Stats() ServerStats {
	return ServerStats{
		Sessions:  s.sessions.Load(),
		Refused:   s.refused.Load(),
		Snapshots: s.snapshots.Load(),
		Resumes:   s.resumes.Load(),
		Batches:   s.batches.Load(),
		Behind:    s.behind.Load(),
		BadAcks:   s.badAcks.Load(),
	}
}

// limited closes at once what exceeds a number of open connections, so that
// peers that connect and say nothing cannot use up the file descriptors.
type limited struct {
	net.Listener
	left int64 // atomic
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if atomic.AddInt64(&l.left, -1) >= 0 {
			return l.wrap(c), nil
		}
		atomic.AddInt64(&l.left, 1)
		_ = c.Close()
	}
}

func (l *limited) wrap(c net.Conn) net.Conn {
	release := sync.OnceFunc(func() { atomic.AddInt64(&l.left, 1) })
	if u, ok := c.(*net.UnixConn); ok {
		return &countedUnix{UnixConn: u, release: release}
	}
	return &counted{Conn: c, release: release}
}

type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}

// countedUnix keeps the methods that tell the peer.
type countedUnix struct {
	*net.UnixConn
	release func()
}

func (c *countedUnix) Close() error {
	c.release()
	return c.UnixConn.Close()
}
