package agent

import (
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// streams carries Raft over plain TCP, on a listener that is already open.
type streams struct {
	net.Listener
	advertise net.Addr
}

var _ raft.StreamLayer = (*streams)(nil)

// Dial implements raft.StreamLayer.
func (s *streams) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), timeout)
}

// Addr implements net.Listener: the address that other servers are told.
func (s *streams) Addr() net.Addr { return s.advertise }

const raftTimeout = 10 * time.Second

func raftTransport(l net.Listener, advertise net.Addr, _ *slog.Logger) raft.Transport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &streams{l, advertise}, MaxPool: 3, Timeout: raftTimeout, Logger: hclog.NewNullLogger(),
	})
}
