package store

import (
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

	// WriteTimeout bounds a write whose context has no earlier deadline.
	// Default 5s.
	WriteTimeout time.Duration

	// Timing of Raft. Defaults: heartbeat and election 1s, lease 500ms,
	// commit 10ms. Commit bounds how late a follower learns of a commit.
	HeartbeatTimeout, ElectionTimeout, LeaseTimeout, CommitTimeout time.Duration
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
	if c.SnapshotRetain <= 0 {
		c.SnapshotRetain = 3
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
	// Open restores the newest snapshot itself.
	rc.NoSnapshotRestoreOnStart = true
	rc.NoLegacyTelemetry = true
	return rc
}
