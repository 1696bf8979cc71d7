package raftnet

import (
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	rpcTimeout = 10 * time.Second
	// poolSize is how many idle connections are kept per server: for
	// replication, for heartbeats, and for votes.
	poolSize = 3
)

// NewTransport returns Raft's transport over l, which it closes. Raft sends one
// message at a time to each server: with more, a single failed one can wedge
// replication to that server for ever (raft issue 612).
func NewTransport(l *Layer, log hclog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: l, ServerAddressProvider: l,
		MaxPool: poolSize, MaxRPCsInFlight: 1, Timeout: rpcTimeout, Logger: log,
	})
}
