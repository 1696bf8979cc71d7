package store

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

// TestSnapshotLoopEnds makes a follower with an uncommitted tail beyond the
// newest snapshot (raft issue 697). Without the watchdog the leader installs
// the same snapshot for ever.
func TestSnapshotLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		none := uint64(0)
		c.conf = func(cfg *Config) { cfg.trailingLogs = &none }
		c.start("n1", true)
		for _, name := range []string{"n2", "n3"} {
			c.start(name, false)
			c.join(name)
		}
		old := c.settle(3)
		register(t, old, instance("a", "10.0.0.1"))
		c.settle(3)
		name := old.cfg.Name
		c.isolate(name, true)
		for range 30 { // the tail that will never be committed
			e := logEntry{commands: []string{string((&command{op: opExpire}).append(nil))}}
			old.node().Apply(e.append(nil), 0)
		}
		synctest.Wait()
		c.until("another leader", func() bool { l := c.leader(); return l != nil && l != old })
		l := c.leader()
		register(t, l, instance("a", "10.0.0.2"))
		if err := l.node().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		if tail, snap := old.node().LastIndex(), l.node().LastIndex(); tail <= snap+1 {
			t.Fatalf("the tail ends at %d, the snapshot is of %d: nothing to prove", tail, snap)
		}
		c.isolate(name, false)
		c.until("the old leader caught up", func() bool { return old.position() == l.position() })
		register(t, l, instance("a", "10.0.0.3"))
		c.until("it follows", func() bool { return old.State().Instances() == 3 })
		if got := old.restarts.Load(); got != 1 {
			t.Errorf("%d restarts, want 1", got)
		}
	})
}

// TestLeaderWithAHungDiskStepsDown: its heartbeats go on, so without the guard
// it stays leader and no write ever ends (raft issues 503, 614).
func TestLeaderWithAHungDiskStepsDown(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hang  time.Duration
		alive bool
	}{
		{"for a while", 40 * time.Second, true},
		{"for good", time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "n1", "n2", "n3")
				l := c.settle(3)
				wake := make(chan struct{})
				var hangs atomic.Bool
				hangs.Store(true)
				// The hook is read by writes of this server only, which are idle now.
				l.disk.log.guard.slow = func() {
					if hangs.Load() {
						<-wake
					}
				}
				end := sync.OnceFunc(func() { hangs.Store(false); close(wake) })
				defer end()
				time.AfterFunc(tt.hang, end)
				start := time.Now()
				other := c.node("n1")
				if other == l {
					other = c.node("n2")
				}
				c.until("a write succeeds elsewhere", func() bool {
					_, err := other.Register(t.Context(), Meta{}, []record.Instance{instance("a", "10.0.0.1")})
					return err == nil
				})
				if took := time.Since(start); took > stallDeadline+15*time.Second {
					t.Errorf("writes stood still for %s", took)
				}
				if tt.alive {
					c.until("the server is back", func() bool { return l.restarts.Load() == 1 && l.position() == other.position() })
					register(t, other, instance("a", "10.0.0.2"))
					c.until("it follows", func() bool { return l.State().Instances() == 2 })
					return
				}
				pass(2 * stallLimit)
				if err := l.Err(); err == nil {
					t.Error("the server did not give up")
				}
			})
		})
	}
}

// TestNoPipeline: one failed AppendEntries can block a pipeline to a server
// for ever (raft issue 612), so none may be offered.
func TestNoPipeline(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	if p, err := s.peers.AppendEntriesPipeline("x", "x"); err == nil || p != nil {
		t.Error("the transport offers a pipeline")
	}
}

func TestRestartOfRaftKeepsTheState(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	register(t, s, instance("a", "10.0.0.1"))
	want := s.State()
	s.restart("test")
	if got := s.State(); got.Position() != want.Position() {
		t.Errorf("at %s, want %s", got.Position(), want.Position())
	}
	if got := s.disk.mark.applied.Load(); got < want.Position().Index {
		t.Errorf("mark at %d, want at least %d", got, want.Position().Index)
	}
	waitLeading(t, s)
	register(t, s, instance("a", "10.0.0.2"))
	if err := s.node().Snapshot().Error(); err != nil {
		t.Error(err)
	}
}

// TestStoppedLeaderDoesNotLead: a server whose state machine stopped must not
// keep the cluster from working.
func TestStoppedLeaderDoesNotLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		old := c.settle(3)
		register(t, old, instance("a", "10.0.0.1"))
		_ = old.fsm.fail(errors.New("test"))
		<-old.Stopped()
		c.until("another leader", func() bool { l := c.leader(); return l != nil && l != old })
		register(t, c.leader(), instance("a", "10.0.0.2"))
		if _, err := old.Register(t.Context(), Meta{}, []record.Instance{instance("a", "10.0.0.3")}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrStopped) {
			t.Errorf("write at the stopped server: %v", err)
		}
		if old.State().Instances() != 1 || !errors.Is(old.Err(), ErrStopped) {
			t.Errorf("%d instances, error %v", old.State().Instances(), old.Err())
		}
	})
}

// TestEntriesHandedOverAgain: a Raft that is started anew begins at its
// snapshot. Neither the state nor the mark may follow it back, and no snapshot
// may be taken before it has caught up.
func TestEntriesHandedOverAgain(t *testing.T) {
	m := newMachine()
	var err error
	if m.f.mark, err = openMark(filepath.Join(t.TempDir(), markFile)); err != nil {
		t.Fatal(err)
	}
	defer m.f.mark.close()
	logs := []*raft.Log{m.log(reg(instance("a", "10.0.0.1"))), m.log(reg(instance("a", "10.0.0.2"))), m.log(reg(instance("a", "10.0.0.3")))}
	m.f.ApplyBatch(logs)
	want := m.f.state()
	m.f.rewind()
	m.f.ApplyBatch(logs[:2])
	if got := m.f.state(); got.Position() != want.Position() || got.Hash() != want.Hash() {
		t.Errorf("state went to %s, want %s", got.Position(), want.Position())
	}
	if got := m.f.mark.applied.Load(); got != want.Position().Index {
		t.Errorf("mark went to %d, want %d", got, want.Position().Index)
	}
	if _, err := m.f.Snapshot(); !errors.Is(err, errReplaying) {
		t.Errorf("snapshot of index %d with the content of %s: %v", logs[1].Index, want.Position(), err)
	}
	m.f.ApplyBatch(logs[2:])
	if _, err := m.f.Snapshot(); err != nil {
		t.Errorf("snapshot after it has caught up: %v", err)
	}
}
