package store

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/fluid-sd/fluid/plugin/record"
)

// testConfig returns the configuration of a single server in dir.
func testConfig(dir string) Config {
	return Config{
		Dir: dir, Name: "node1", Bootstrap: true,
		Logger: slog.New(slog.DiscardHandler),
		Transport: func(id string) (raft.Transport, error) {
			_, t := raft.NewInmemTransport(raft.ServerAddress(id))
			t.Connect(t.LocalAddr(), t) // so that the server can hasten its own election
			return t, nil
		},
	}
}

// memoryDir returns a directory in memory if the machine has one with room, for
// tests that make many directories and no claim about disks.
func memoryDir(t *testing.T) string {
	t.Helper()
	const shm, room = "/dev/shm", 1 << 30
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || st.Bavail*uint64(st.Bsize) < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "fluid-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// open opens a store that closes with the test, and waits until it leads.
func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	waitLeading(t, s)
	return s
}

func waitLeading(t *testing.T, s *Store) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !s.IsLeader() {
		if time.Now().After(deadline) {
			t.Fatalf("no leader: %+v", s.Status())
		}
		select {
		case <-s.Changed(s.State().Position()):
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func instance(service, ip string) record.Instance {
	return record.Instance{Service: service, Addrs: []netip.Addr{netip.MustParseAddr(ip)}, Weight: record.DefaultWeight}
}

func register(t *testing.T, s *Store, ins ...record.Instance) []Result {
	t.Helper()
	rs, err := s.Register(context.Background(), Meta{}, ins)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestRegisterSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, testConfig(dir))
	r := register(t, s, instance("checkout", "10.0.0.9"))
	if len(r) != 1 || !r[0].Created || !r[0].Changed || r[0].ID != "10.0.0.9" || r[0].Position != s.State().Position() {
		t.Fatalf("result %+v at %s", r, s.State().Position())
	}
	again := register(t, s, instance("checkout", "10.0.0.9"))
	if again[0].Created || again[0].Changed || again[0].Position != r[0].Position {
		t.Errorf("repeated: %+v, want unchanged at %s", again[0], r[0].Position)
	}
	before := s.State()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(testConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := s.State()
	if got.Position().Before(before.Position()) || got.Hash() != before.Hash() || got.ClusterID() != before.ClusterID() {
		t.Errorf("reopened at %s hash %x, want %s hash %x", got.Position(), got.Hash(), before.Position(), before.Hash())
	}
}
