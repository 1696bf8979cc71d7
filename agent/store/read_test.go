package store

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// TestStandbysAreNoQuorum cuts a leader that is slow to notice off from the
// other voters, together with the standbys. Raft's VerifyLeader takes the
// standbys' answers for a quorum.
func TestStandbysAreNoQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.conf = func(cfg *Config) {
			cfg.StabilizationTime, cfg.WriteTimeout = time.Second, 2*time.Second
			if cfg.Name == "n1" {
				cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaseTimeout = 20*time.Second, 20*time.Second, 20*time.Second
			}
		}
		old := c.start("n1", true)
		for _, name := range []string{"n2", "n3", "n4", "n5"} {
			c.start(name, false)
			c.join(name)
		}
		if l := c.settle(3); l != old {
			t.Fatal("another server leads")
		}
		voters := map[string]bool{}
		for _, sv := range old.Servers() {
			voters[sv.Name] = sv.Voter
		}
		var away []string
		for _, name := range []string{"n2", "n3", "n4", "n5"} {
			if !voters[name] {
				continue
			}
			away = append(away, name)
			for _, other := range []string{"n1", "n2", "n3", "n4", "n5"} {
				if !voters[other] || other == "n1" {
					c.sever(name, other, true)
					c.sever(other, name, true)
				}
			}
		}
		var l *Store
		c.until("the other voters have a leader", func() bool {
			for _, name := range away {
				if s := c.node(name); s.IsLeader() {
					l = s
				}
			}
			return l != nil
		})
		register(t, l, instance("a", "10.0.0.1"))
		if !old.IsLeader() {
			t.Fatal("the old leader knows already: nothing to prove")
		}
		if st, err := old.Linearizable(t.Context()); err == nil {
			t.Errorf("linearizable read at the old leader gives %d instances, want an error", st.Instances())
		}
		// A write that would change nothing is answered without an entry, and
		// must not be either.
		if _, err := old.DeregisterInstance(t.Context(), Meta{}, "a", "10.0.0.1"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("deregistering what the old leader does not know: %v, want ErrUnavailable", err)
		}
		if _, err := old.Register(t.Context(), Meta{}, []record.Instance{instance("b", "10.0.0.1")}); err == nil {
			t.Error("the old leader acknowledged a write")
		}
	})
}
