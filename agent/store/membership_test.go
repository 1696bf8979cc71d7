package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

func TestClusterForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3", "n4")
		l := c.settle(3)
		for i, s := range c.live() { // writes at any server
			if _, err := s.Register(t.Context(), Meta{}, []record.Instance{instance("a", fmt.Sprintf("10.0.0.%d", i+1))}); err != nil {
				t.Fatal(err)
			}
		}
		c.settle(3)
		for _, s := range c.live() {
			st := s.State()
			if st.Hash() != l.State().Hash() || st.ClusterID() != l.State().ClusterID() || st.Instances() != 4 {
				t.Errorf("%s: hash %x, cluster %s, %d instances", s.cfg.Name, st.Hash(), st.ClusterID(), st.Instances())
			}
			status := s.Status()
			names := map[string]bool{}
			for _, sv := range status.Servers {
				names[sv.Name] = sv.HTTP == sv.Name
			}
			if len(names) != 4 || !names["n1"] || !names["n4"] || status.Leader.ID != l.ServerID() {
				t.Errorf("%s: status %+v", s.cfg.Name, status)
			}
		}
		// Joining again changes nothing.
		before := l.node().LastIndex()
		c.join("n2")
		if got := l.node().LastIndex(); got != before {
			t.Errorf("joining again wrote %d entries", got-before)
		}
	})
}

// TestRestartWithoutQuorumKeepsTheState: Raft alone would come back with the
// last snapshot, here none, and wait for a leader.
func TestRestartWithoutQuorumKeepsTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		register(t, l, instance("a", "10.0.0.1"), instance("a", "10.0.0.2"))
		c.settle(3)
		want := l.State()
		for _, name := range []string{"n1", "n2", "n3"} {
			c.kill(name)
		}
		for _, name := range []string{"n1", "n2", "n3"} {
			got := c.start(name, false).State()
			if got.Position() != want.Position() || got.Hash() != want.Hash() {
				t.Errorf("%s came back at %s with hash %x, want %s, %x", name, got.Position(), got.Hash(), want.Position(), want.Hash())
			}
			c.kill(name)
		}
	})
}

// TestMarkLostRestartIsClose: after a loss of power the mark may be old, but
// the log itself carries the applied index of the write before.
func TestMarkLostRestartIsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		for i := range 5 {
			register(t, l, instance("a", fmt.Sprintf("10.0.0.%d", i+1)))
		}
		c.settle(3)
		for _, name := range []string{"n1", "n2", "n3"} {
			c.kill(name)
			if err := os.Remove(c.nodes[name].dir + "/" + markFile); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.start("n1", false).State().Instances(); got < 4 {
			t.Errorf("%d instances, want at least all but the last", got)
		}
	})
}

func TestLostDiskIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		register(t, l, instance("a", "10.0.0.1"))
		c.kill("n3")
		old := c.nodes["n3"].dir
		oldID, err := ReadServerID(old)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(old); err != nil {
			t.Fatal(err)
		}
		s := c.start("n3", false)
		if s.ServerID() == oldID {
			t.Fatal("an empty directory has the old identity")
		}
		c.join("n3")
		found := false
		for _, sv := range l.Servers() {
			if sv.ID == oldID {
				t.Errorf("the lost server is still there: %+v", sv)
			}
			if sv.ID == s.ServerID() {
				found = true
				if sv.Voter {
					t.Error("the new server votes before it has caught up")
				}
			}
		}
		if !found {
			t.Error("the new server is not there")
		}
		c.settle(3)
		if _, ok := l.State().s.servers.get(oldID); ok {
			t.Error("what is known of the lost server was kept")
		}
	})
}

func TestJoinIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alive := map[string]string{}
		c := newCluster(t)
		c.conf = func(cfg *Config) {
			cfg.MaxServers = 2
			cfg.Probe = func(_ context.Context, sv Server) error {
				if alive[sv.Addr] != sv.ID {
					return errors.New("somebody else answers")
				}
				return nil
			}
		}
		l := c.start("n1", true)
		alive["n1"] = l.ServerID()
		s2 := c.start("n2", false)
		alive["n2"] = s2.ServerID()
		c.join("n2")
		l = c.settle(2)
		for _, tt := range []struct {
			name string
			req  JoinRequest
			want error
			says string
		}{
			{"another cluster", JoinRequest{ServerInfo: ServerInfo{ID: "x", Name: "x"}, Addr: "x", ClusterID: strings.Repeat("f", 32)}, ErrOtherCluster, strings.Repeat("f", 32)},
			{"no name", JoinRequest{ServerInfo: ServerInfo{ID: "x"}, Addr: "x"}, ErrInvalid, "name"},
			{"unreachable address", JoinRequest{ServerInfo: ServerInfo{ID: "x", Name: "x"}, Addr: "x"}, ErrConflict, "RAFT_ADVERTISE"},
			{"name of a living server", JoinRequest{ServerInfo: ServerInfo{ID: "y", Name: "n2"}, Addr: "y"}, ErrConflict, "alive"},
			{"name of the leader", JoinRequest{ServerInfo: ServerInfo{ID: "y", Name: "n1"}, Addr: "y"}, ErrConflict, "leader"},
			{"automatic, when there are enough", JoinRequest{ServerInfo: ServerInfo{ID: "y", Name: "y"}, Addr: "y", Auto: true}, ErrFull, "2"},
		} {
			alive["y"] = "y"
			before := l.node().LastIndex()
			_, err := l.Join(t.Context(), Meta{}, tt.req)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v, want %v saying %q", tt.name, err, tt.want, tt.says)
			}
			if got := l.node().LastIndex(); got != before {
				t.Errorf("%s: wrote %d entries", tt.name, got-before)
			}
		}
		if _, err := s2.Join(t.Context(), Meta{}, JoinRequest{}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("join at a follower: %v", err)
		}
	})
}

func TestWriteWithoutQuorumEndsInBoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		c.isolate(l.cfg.Name, true)
		start := time.Now()
		_, err := l.Register(t.Context(), Meta{}, []record.Instance{instance("a", "10.0.0.1")})
		if took := time.Since(start); !errors.Is(err, ErrUnknown) || took > 6*time.Second {
			t.Errorf("in flight: %v after %s, want ErrUnknown in 5s", err, took)
		}
		start = time.Now()
		_, err = l.Register(t.Context(), Meta{}, []record.Instance{instance("a", "10.0.0.2")})
		if took := time.Since(start); !errors.Is(err, ErrUnavailable) || took > 6*time.Second {
			t.Errorf("later: %v after %s, want ErrUnavailable in 5s", err, took)
		}
		if _, err := l.Linearizable(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("linearizable read: %v, want ErrUnavailable", err)
		}
		if l.State().Instances() != 0 {
			t.Error("the local state shows an uncommitted write")
		}
	})
}

func TestPlannedStopLosesNoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		c.settle(3)
		stop := make(chan struct{})
		done := make(chan int)
		go func() {
			n := 0
			defer func() { done <- n }()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				s := c.node("n1") // never restarted
				if _, err := s.Register(t.Context(), Meta{IdempotencyKey: fmt.Sprint(i)}, []record.Instance{instance("a", fmt.Sprintf("10.0.%d.%d", i/250, i%250+1))}); err != nil {
					t.Errorf("write %d: %v", i, err)
				}
				n++
				pass(20 * time.Millisecond)
			}
		}()
		for _, name := range []string{"n2", "n3"} {
			if l := c.settled(); l != nil && l.cfg.Name == "n1" {
				if err := l.Transfer(t.Context(), c.node(name).ServerID()); err != nil {
					t.Fatal(err)
				}
			}
			s := c.node(name)
			c.mu.Lock()
			c.nodes[name].store = nil
			c.mu.Unlock()
			if err := s.Close(); err != nil {
				t.Errorf("close %s: %v", name, err)
			}
			c.start(name, false)
			pass(5 * time.Second)
		}
		close(stop)
		n := <-done
		if got := c.settle(3).State().Instances(); got != n {
			t.Errorf("%d instances, want %d", got, n)
		}
	})
}

func (c *testCluster) settled() *Store {
	var l *Store
	c.until("a leader", func() bool { l = c.leader(); return l != nil })
	return l
}

func TestRemovedServerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		gone := c.node("n3")
		if l == gone {
			gone = c.node("n2")
		}
		if err := l.Remove(t.Context(), Meta{}, gone.ServerID()); err != nil {
			t.Fatal(err)
		}
		term := l.node().CurrentTerm()
		pass(time.Minute)
		if got := l.node().CurrentTerm(); got != term || l.node().State() != raft.Leader {
			t.Errorf("the removed server disturbed the others: term %d, want %d", got, term)
		}
		if err := l.Remove(t.Context(), Meta{}, gone.ServerID()); !errors.Is(err, ErrNotFound) {
			t.Errorf("removing again: %v, want ErrNotFound", err)
		}
	})
}

func TestLeaderCommitsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		in := instance("a", "10.0.0.1")
		in.Expires = time.Now().Add(30 * time.Second).UnixMilli()
		register(t, l, in)
		c.kill(l.cfg.Name)
		pass(29 * time.Second)
		l = c.settle(3)
		if l.State().Instances() != 1 {
			t.Error("expired early")
		}
		pass(2 * time.Second)
		for _, s := range c.live() {
			if s.State().Instances() != 0 {
				t.Errorf("%s: not expired", s.cfg.Name)
			}
		}
	})
}

func TestVotersAreChosen(t *testing.T) {
	tests := []struct {
		name            string
		n               int
		servers         string // id:zone and flags: v voter, l leader, h healthy, s stable
		promote, demote raft.ServerID
	}{
		{"alone", 3, "a:vlhs", "", ""},
		{"second, stable", 3, "a:vlhs b:hs", "b", ""},
		{"second, not yet stable", 3, "a:vlhs b:h", "", ""},
		{"one at a time", 3, "a:vlhs b:hs c:hs", "b", ""},
		{"enough", 3, "a:vlhs b:vhs c:vhs d:hs", "", ""},
		{"a voter failed", 3, "a:vlhs b:vhs c:v d:hs", "d", ""},
		{"the failed voter goes after its replacement votes", 3, "a:vlhs b:vhs c:v d:vhs", "", "c"},
		{"a voter failed and nobody can replace it", 3, "a:vlhs b:vhs c:v", "", ""},
		{"zones: prefer an empty one", 3, "a:xvlhs b:xhs c:yhs", "c", ""},
		{"zones: spread what is full", 3, "a:xvlhs b:xvhs c:xvhs d:yhs", "d", ""},
		{"zones: then demote in the crowded one", 3, "a:xvlhs b:xvhs c:xvhs d:yvhs", "", "c"},
		{"zones: stable once spread", 3, "a:xvlhs b:yvhs c:zvhs d:xhs e:yhs", "", ""},
		{"never the leader", 1, "a:vhs b:vlhs", "", "a"},
		{"more voters wanted", 5, "a:vlhs b:vhs c:vhs d:hs e:hs", "d", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var all []candidate
			for f := range strings.FieldsSeq(tt.servers) {
				id, flags, _ := strings.Cut(f, ":")
				c := candidate{id: raft.ServerID(id)}
				for _, r := range flags {
					switch r {
					case 'v':
						c.voter = true
					case 'l':
						c.leader = true
					case 'h':
						c.healthy = true
					case 's':
						c.stable = true
					default:
						c.zone = string(r)
					}
				}
				all = append(all, c)
			}
			promote, demote := nextVoter(all, tt.n)
			if promote != tt.promote || demote != tt.demote {
				t.Errorf("promote %q, demote %q, want %q, %q", promote, demote, tt.promote, tt.demote)
			}
		})
	}
}
