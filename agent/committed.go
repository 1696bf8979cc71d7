package agent

import (
	"context"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

// committed is what the cluster agreed on, and the way to change it, whatever
// part this agent has in consensus: a server holds the log (*store.Store), a
// client follows one (*store.Client). All methods may be called from any
// goroutine; none but the writes, the reads of the leader and Close blocks.
type committed interface {
	api.Writer
	api.Cluster

	// State returns what this agent has applied.
	State() store.State
	// LastContact returns when this agent last knew that it had everything that
	// was committed then, zero if it never did.
	LastContact() time.Time
	// Err returns why the state does not follow the cluster any more, or nil.
	Err() error

	// ServerID returns the random id of the data directory; Self is what others
	// are to know of this agent.
	ServerID() string
	Self() store.ServerInfo
	// Servers returns the servers of the cluster, Leader the one that leads as
	// far as this agent knows, Status both with the positions.
	Servers() []store.Server
	Leader() store.Server
	IsLeader() bool
	Status() store.Status

	// PutMembers adds DNS servers to the roster, PutFence commits a fence.
	PutMembers(ctx context.Context, m store.Meta, members []store.Member) error
	PutFence(ctx context.Context, m store.Meta, f record.Fence) (store.Result, error)

	Close() error
}

var (
	_ committed = (*store.Store)(nil)
	_ committed = (*store.Client)(nil)
)
