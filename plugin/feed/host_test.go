package feed

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc/test/bufconn"
)

// host is one agent's feed, which can be stopped and started again.
type host struct {
	t   testing.TB
	cfg ServerConfig

	mu     sync.Mutex
	server *Server
	listen *bufconn.Listener
	conns  []net.Conn
	served chan struct{}
}

func newHost(t testing.TB, src Source) *host {
	return &host{t: t, cfg: ServerConfig{
		Source: src, Implementation: "inmemory", Version: "test", Peers: Peers{Unchecked: true}, Logger: slog.New(slog.DiscardHandler),
	}}
}

func (h *host) start() *Server {
	s, err := NewServer(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	s.part = 200
	l := bufconn.Listen(64 << 10)
	served := make(chan struct{})
	h.mu.Lock()
	h.server, h.listen, h.served = s, l, served
	h.mu.Unlock()
	go func() {
		defer close(served)
		if err := s.Serve(l); err != nil {
			h.t.Errorf("Serve: %v", err)
		}
	}()
	return s
}

func (h *host) stop() {
	h.mu.Lock()
	s, served := h.server, h.served
	h.server, h.listen = nil, nil
	h.mu.Unlock()
	if s != nil {
		s.Stop()
		<-served
	}
}

// cut breaks every connection.
func (h *host) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		_ = c.Close()
	}
	h.conns = nil
}

func (h *host) dial(ctx context.Context) (net.Conn, error) {
	h.mu.Lock()
	l := h.listen
	h.mu.Unlock()
	if l == nil {
		return nil, errors.New("no agent")
	}
	c, err := l.DialContext(ctx)
	if err == nil {
		h.mu.Lock()
		h.conns = append(h.conns, c)
		h.mu.Unlock()
	}
	return c, err
}

// connect runs a client until the returned function is called.
func (h *host) connect(id string, sink Sink, relay bool) (*Client, func()) {
	c, err := NewClient(ClientConfig{Dial: h.dial, MemberID: id, Name: id, Relay: relay}, sink)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
			h.t.Errorf("Run: got %v, want canceled", err)
		}
	}()
	return c, func() { cancel(); <-done }
}
