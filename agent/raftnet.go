package agent

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// streams carries Raft over plain TCP, on a listener that is already open.
// Raft's transport leaves its connections open when it is closed; streams
// closes them.
type streams struct {
	net.Listener
	advertise net.Addr

	mu    sync.Mutex // guards open
	open  map[net.Conn]struct{}
	ended bool
}

var _ raft.StreamLayer = (*streams)(nil)

// Dial implements raft.StreamLayer.
func (s *streams) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", string(addr), timeout)
	if err != nil {
		return nil, err
	}
	return s.keep(c)
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return s.keep(c)
}

func (s *streams) keep(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	s.open[c] = struct{}{}
	return &stream{c, s}, nil
}

// Addr implements net.Listener: the address that other servers are told.
func (s *streams) Addr() net.Addr { return s.advertise }

// Close implements net.Listener.
func (s *streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	errs := []error{s.Listener.Close()}
	for c := range s.open {
		errs = append(errs, ignoreClosed(c.Close()))
	}
	clear(s.open)
	return errors.Join(errs...)
}

type stream struct {
	net.Conn
	of *streams
}

// Close implements net.Conn.
func (c *stream) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c.Conn)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

const raftTimeout = 10 * time.Second

func raftTransport(l net.Listener, advertise net.Addr) raft.Transport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  &streams{Listener: l, advertise: advertise, open: map[net.Conn]struct{}{}},
		MaxPool: 3, Timeout: raftTimeout, Logger: hclog.NewNullLogger(),
	})
}
