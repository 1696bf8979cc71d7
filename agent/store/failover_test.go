package store

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// TestWritesGoOnAfterTheLeaderDies measures, in fake time and with the default
// timing of Raft, how long no write succeeds after the leader is killed.
func TestWritesGoOnAfterTheLeaderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		var gaps []time.Duration
		for i := range 30 {
			l := c.settle(3)
			c.kill(l.cfg.Name)
			start := time.Now()
			var survivor *Store
			for _, s := range c.live() {
				survivor = s
			}
			c.until("a write succeeds", func() bool {
				in := instance("a", "10.0.0.1")
				in.Port = uint16(i + 1)
				_, err := survivor.Register(t.Context(), Meta{}, []record.Instance{in})
				return err == nil
			})
			gaps = append(gaps, time.Since(start))
			c.start(l.cfg.Name, false)
		}
		slices.Sort(gaps)
		t.Logf("median %s, worst %s", gaps[len(gaps)/2], gaps[len(gaps)-1])
		if median, worst := gaps[len(gaps)/2], gaps[len(gaps)-1]; median > 3*time.Second || worst > 6*time.Second {
			t.Errorf("median %s, worst %s, want at most 3s and 6s", median, worst)
		}
	})
}
