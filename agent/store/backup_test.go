package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

func saved(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.State().WriteSnapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func keys(st State) (keys []record.Key) {
	for e := range st.Entries() {
		keys = append(keys, e.Key)
	}
	return keys
}

func TestRestoreIntoTheSameCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		var ins []record.Instance
		for i := range 1500 { // more than one piece
			in := instance("a", "10.0.0.1")
			in.ID = fmt.Sprintf("i%d", i)
			for j := range 6 {
				in.Meta = append(in.Meta, record.Pair{Key: fmt.Sprintf("k%d", j), Value: newID() + newID() + newID() + newID() + newID() + newID()})
			}
			ins = append(ins, in)
		}
		for ; len(ins) > 0; ins = ins[min(300, len(ins)):] {
			register(t, l, ins[:min(300, len(ins))]...)
		}
		before, snap := l.State(), saved(t, l)
		if len(snap) <= restoreChunk {
			t.Fatalf("the snapshot has %d bytes: one piece only", len(snap))
		}
		register(t, l, instance("later", "10.0.0.2"))
		other := c.node("n2")
		if other == l {
			other = c.node("n3")
		}
		pos, err := other.Restore(t.Context(), Meta{}, bytes.NewReader(snap), 0)
		if err != nil {
			t.Fatal(err)
		}
		c.settle(3)
		if pos.Generation != before.Position().Generation+1 || pos != l.State().Position() {
			t.Errorf("restored to %s, state at %s", pos, l.State().Position())
		}
		for _, s := range c.live() {
			st := s.State()
			if st.Instances() != 1500 || st.ClusterID() != before.ClusterID() || st.Hash() != l.State().Hash() {
				t.Errorf("%s: %d instances, cluster %s", s.cfg.Name, st.Instances(), st.ClusterID())
			}
			if _, ok := st.Since(before.Position()); ok {
				t.Errorf("%s: Since of the old generation claims to know", s.cfg.Name)
			}
			if es, ok := st.Since(record.Position{Generation: pos.Generation, Index: pos.Index - 1}); ok && len(es) != st.Len() {
				t.Errorf("%s: Since before the restore gives %d entries", s.cfg.Name, len(es))
			}
			if len(s.Servers()) != 3 || s.Servers()[0].Name == "" {
				t.Errorf("%s: servers %+v", s.cfg.Name, s.Servers())
			}
		}
		// The changes of the new generation are told one by one.
		register(t, l, instance("new", "10.0.0.3"))
		if es, ok := l.State().Since(pos); !ok || len(es) != 2 {
			t.Errorf("Since %s: %d entries, %v; want the service and the instance", pos, len(es), ok)
		}
		// A restart keeps the generation.
		c.kill("n1")
		c.kill("n2")
		c.kill("n3")
		if got := c.start("n1", false).State().Position(); got.Generation != pos.Generation {
			t.Errorf("after a restart at %s", got)
		}
	})
}

func TestRestoreIntoANewCluster(t *testing.T) {
	old := open(t, testConfig(t.TempDir()))
	register(t, old, instance("a", "10.0.0.1"), instance("b", "10.0.0.2"))
	snap := saved(t, old)
	s := open(t, testConfig(t.TempDir()))
	pos, err := s.Restore(t.Context(), Meta{}, bytes.NewReader(snap), 7)
	if err != nil {
		t.Fatal(err)
	}
	if pos.Generation != 7 || s.State().ClusterID() != old.State().ClusterID() {
		t.Errorf("at %s of cluster %s, want generation 7 of cluster %s", pos, s.State().ClusterID(), old.State().ClusterID())
	}
	if got, want := fmt.Sprint(keys(s.State())), fmt.Sprint(keys(old.State())); got != want {
		t.Errorf("keys %s, want %s", got, want)
	}
	register(t, s, instance("c", "10.0.0.3"))
	info, err := ReadSnapshotInfo(bytes.NewReader(saved(t, s)))
	if err != nil || info.Services != 3 || info.Instances != 3 || info.Position != s.State().Position() {
		t.Errorf("info %+v, %v", info, err)
	}
}

// TestLongRestore: to read a snapshot of a million instances takes longer than a
// write may, on each server.
func TestLongRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.conf = func(cfg *Config) {
			cfg.planted = func(s *Store) {
				committed := s.committed
				s.committed = func(f raft.ApplyFuture, batch []*proposal) (any, error) {
					if cmd, err := decodeCommand(batch[0].raw); err == nil && cmd.op == opCommitRestore {
						pass(4 * s.cfg.WriteTimeout)
					}
					return committed(f, batch)
				}
			}
		}
		for i, name := range []string{"n1", "n2", "n3"} {
			c.start(name, i == 0)
			if i > 0 {
				c.join(name)
			}
		}
		l := c.settle(3)
		register(t, l, instance("a", "10.0.0.1"))
		snap := saved(t, l)
		for _, s := range c.live() { // the leader, and two that forward to it
			pos, err := s.Restore(t.Context(), Meta{}, bytes.NewReader(snap), 0)
			if err != nil || pos.Index == 0 {
				t.Errorf("at %s: restored at %s, %v", s.cfg.Name, pos, err)
			}
		}
	})
}

func TestRestoreIsRefused(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	register(t, s, instance("a", "10.0.0.1"))
	before := s.State().Position()
	snap := saved(t, s)
	snap[len(snap)/2] ^= 1
	for name, b := range map[string][]byte{"damaged": snap, "empty": nil, "cut": snap[:20], "another file": []byte("PK\x03\x04 nothing")} {
		if _, err := s.Restore(t.Context(), Meta{}, bytes.NewReader(b), 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if got := s.State().Position(); got != before {
		t.Errorf("a refused restore moved the position to %s", got)
	}
}

// TestRestoreSurvivesASnapshotInBetween: the staged pieces are part of the state.
func TestRestoreSurvivesASnapshotInBetween(t *testing.T) {
	m := newMachine()
	m.do(reg(instance("a", "10.0.0.1")))
	snap := snapshotOf(t, m.f.current.Load())
	m.do(command{op: opStageRestore, target: "r", id: "0", values: []string{snap[:20]}})
	m.do(command{op: opStageRestore, target: "r", id: "1", values: []string{snap[20:]}})
	again, err := readSnapshot(strings.NewReader(snapshotOf(t, m.f.current.Load())))
	if err != nil {
		t.Fatal(err)
	}
	m.f.current.Store(again)
	if o := m.do(command{op: opCommitRestore, target: "other", id: "0"}); !errors.Is(o.err, ErrConflict) {
		t.Errorf("commit of another restore: %v", o.err)
	}
	if o := m.do(command{op: opCommitRestore, target: "r", id: "0"}); o.err != nil || o.pos.Generation != 2 {
		t.Errorf("commit: %+v", o)
	}
	if o := m.do(command{op: opStageRestore, target: "r", id: "5", values: []string{"x"}}); !errors.Is(o.err, ErrConflict) {
		t.Errorf("piece out of order: %v", o.err)
	}
}

// TestRecoveryWithPeersFile is the runbook for a cluster that has lost its quorum for good:
// one server is left, and is told that it is the cluster.
func TestRecoveryWithPeersFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		register(t, l, instance("a", "10.0.0.1"))
		c.settle(3)
		want := l.State()
		for _, name := range []string{"n1", "n2", "n3"} {
			c.kill(name)
		}
		dir := c.nodes["n2"].dir
		id, err := ReadServerID(dir)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, peersFile, fmt.Sprintf(`[{"id":%q,"address":"n2"}]`, id))
		s := c.start("n2", false)
		c.until("the last server leads", s.IsLeader)
		st := s.State()
		if st.Position().Generation != want.Position().Generation+1 || st.Instances() != 1 || st.ClusterID() != want.ClusterID() {
			t.Errorf("at %s with %d instances", st.Position(), st.Instances())
		}
		register(t, s, instance("a", "10.0.0.2"))
		if _, err := os.Stat(filepath.Join(dir, peersDone)); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"n1", "n3"} { // the others come back empty
			if err := os.RemoveAll(c.nodes[name].dir); err != nil {
				t.Fatal(err)
			}
			c.start(name, false)
			c.join(name)
		}
		c.settle(3)
		c.kill("n2")
		c.start("n2", false)
		if got := c.settle(3).State(); got.Position().Generation != st.Position().Generation || got.Instances() != 2 {
			t.Errorf("later at %s with %d instances", got.Position(), got.Instances())
		}
	})
}

func TestBadPeersFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 0)
	write(t, dir, peersFile, "[{]")
	if _, err := Open(testConfig(dir)); err == nil || !strings.Contains(err.Error(), peersFile) {
		t.Errorf("got %v, want it to name the file", err)
	}
}
