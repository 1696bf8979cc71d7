package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// maxAppendEntries bounds the entries of one message between servers.
const maxAppendEntries = 256

// Config says how a Store runs. Zero durations and numbers mean the default.
type Config struct {
	// Dir is the data directory; it is created if it is missing.
	Dir string
	// Transport makes the connection to the other servers, once the directory
	// is locked and the server's id is known. The Store closes it.
	Transport func(serverID string) (raft.Transport, error)
	// Logger gets what happens in the background. Required.
	Logger *slog.Logger

	// Name, HTTP, Zone and Version describe this server to the others, see
	// ServerInfo.
	Name, HTTP, Zone, Version string

	// Bootstrap makes a new cluster of this server alone, if the directory
	// holds no state. On existing state it changes nothing.
	Bootstrap bool

	// Forwarder carries writes and reads to the leader. Nil: they return a
	// *NotLeaderError on other servers.
	Forwarder Forwarder
	// Probe dials the Raft address of a server and returns nil if the server
	// with that id and name listens there. Nil: addresses of joining servers are not checked.
	Probe func(ctx context.Context, sv Server) error

	// Voters is how many servers vote, MaxServers how many servers an automatic
	// join may make. Defaults: 3 (at most 5) and 7.
	Voters, MaxServers int
	// StabilizationTime is how long a server must be healthy before it may
	// vote, DeadServerTimeout how long one must be silent to be removed, if
	// enough others are left. Defaults: 10s, 72h.
	StabilizationTime, DeadServerTimeout time.Duration

	// SnapshotInterval is how often to look whether SnapshotThreshold entries
	// have been applied since the last snapshot. Defaults: 30s, 1000.
	SnapshotInterval  time.Duration
	SnapshotThreshold uint64
	// SnapshotRetain is how many snapshots are kept. Default 3.
	SnapshotRetain int

	// MaxInstances and MaxBytes are the cluster's quota while this server
	// leads. Defaults: 1,000,000 instances, 1 GiB.
	MaxInstances, MaxBytes uint64
	// MinFree is how many bytes the disk must have free for a write to be
	// accepted. Default 32 MiB.
	MinFree uint64

	// AuditFile gets one JSON line per critical write: who, from where, what, at
	// which position, with which outcome. It is rotated. Empty: none.
	AuditFile string

	// WriteTimeout bounds a write whose context has no earlier deadline.
	// Default 5s.
	WriteTimeout time.Duration

	// Timing of Raft. Defaults: heartbeat and election 1s, lease 500ms,
	// commit 10ms. Commit bounds how late a follower learns of a commit.
	HeartbeatTimeout, ElectionTimeout, LeaseTimeout, CommitTimeout time.Duration

	// trailingLogs replaces the number of entries kept behind a snapshot; for
	// tests that need a follower to fall behind it.
	trailingLogs *uint64
	// segmentSize replaces the size of the log's files; for tests that make many.
	segmentSize int
	// single puts every command into an entry of its own, at once; for
	// benchmarks of what gathering them is worth.
	single bool
	// planted breaks the store before it starts; for tests that must notice.
	planted func(*Store)
}

func (c *Config) setDefaults() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("store: Dir is missing"))
	}
	if c.Transport == nil {
		errs = append(errs, errors.New("store: Transport is missing"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("store: Logger is missing"))
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&c.SnapshotInterval, 30 * time.Second},
		{&c.WriteTimeout, 5 * time.Second},
		{&c.HeartbeatTimeout, time.Second},
		{&c.ElectionTimeout, time.Second},
		{&c.LeaseTimeout, 500 * time.Millisecond},
		{&c.CommitTimeout, 10 * time.Millisecond},
		{&c.StabilizationTime, 10 * time.Second},
		{&c.DeadServerTimeout, 72 * time.Hour},
	} {
		if *d.v < 0 {
			errs = append(errs, fmt.Errorf("store: negative duration %s", *d.v))
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	for _, n := range []struct {
		v   *uint64
		def uint64
	}{
		{&c.SnapshotThreshold, 1000},
		{&c.MaxInstances, 1_000_000},
		{&c.MaxBytes, 1 << 30},
		{&c.MinFree, 32 << 20},
	} {
		if *n.v == 0 {
			*n.v = n.def
		}
	}
	for _, n := range []struct {
		v   *int
		def int
	}{{&c.SnapshotRetain, 3}, {&c.Voters, 3}, {&c.MaxServers, 7}} {
		if *n.v <= 0 {
			*n.v = n.def
		}
	}
	if c.segmentSize == 0 {
		c.segmentSize = segmentSize
	}
	if c.Voters > 5 {
		errs = append(errs, fmt.Errorf("store: %d voters; at most 5 are useful", c.Voters))
	}
	return errors.Join(errs...)
}

// raft returns Raft's configuration.
func (c *Config) raft(id string) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(id)
	rc.Logger = raftLogger(c.Logger)
	rc.HeartbeatTimeout = c.HeartbeatTimeout
	rc.ElectionTimeout = c.ElectionTimeout
	rc.LeaderLeaseTimeout = c.LeaseTimeout
	rc.CommitTimeout = c.CommitTimeout
	rc.MaxAppendEntries = maxAppendEntries
	// Writes go into the log in groups. This breaks the timeout of raft.Apply;
	// the proposer keeps its own deadlines.
	rc.BatchApplyCh = true
	rc.ShutdownOnRemove = false
	rc.SnapshotInterval = c.SnapshotInterval
	rc.SnapshotThreshold = c.SnapshotThreshold
	// A snapshot must always be newer than any follower's uncommitted tail,
	// else installing it can repeat for ever (raft issue 697).
	rc.TrailingLogs = c.SnapshotThreshold + 32768
	if c.trailingLogs != nil {
		rc.TrailingLogs = *c.trailingLogs
	}
	// Open restores the newest snapshot itself.
	rc.NoSnapshotRestoreOnStart = true
	rc.NoLegacyTelemetry = true
	return rc
}
