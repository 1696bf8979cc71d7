package store

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// What the benchmark of the HTTP interface, which imports this package, needs
// of it.

// CompareWrites compares ways to make the nth write, see compare. The names
// and the ways go together.
func CompareWrites(b *testing.B, names []string, ways []func(ctx context.Context, n uint64) error) {
	b.Helper()
	var systems []*system
	for i, name := range names {
		systems = append(systems, &system{name: name, write: ways[i]})
	}
	compareAll(b, systems)
}

// Payload is the nth write.
func Payload(n uint64) record.Instance { return payload(n) }

// ThreeStores returns the leader of a cluster of three that write audit logs.
func ThreeStores(b *testing.B) *Store {
	b.Helper()
	return threeStores(b, func(c *Config) { c.AuditFile = filepath.Join(b.TempDir(), "audit.log") })
}

// Memory is a store without Raft: a command is committed by being applied.
type Memory struct {
	writes

	mu    sync.Mutex // guards what follows
	fsm   *fsm
	audit *auditLog
	index uint64
}

// NewMemory returns one that writes an audit log too.
func NewMemory(b *testing.B) *Memory {
	b.Helper()
	audit, err := openAudit(filepath.Join(b.TempDir(), "audit.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = audit.close() })
	m := &Memory{fsm: newFSM(), audit: audit}
	m.writes = writes{timeout: 5 * time.Second, execute: m.apply}
	return m
}

// State returns what was applied.
func (m *Memory) State() State { return m.fsm.state() }

func (m *Memory) apply(_ context.Context, c *command) (outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index++
	t := m.fsm.current.Load().txn()
	e := logEntry{time: time.Now().UnixMilli(), maxInstances: 1_000_000, maxBytes: 1 << 30}
	t.begin(m.index, &e)
	o := t.apply(c)
	t.end()
	m.fsm.publish(t.commit())
	m.audit.applied(1, &applied{index: m.index, time: e.time, commands: []command{*c}, outcomes: []outcome{o}})
	return o, nil
}
