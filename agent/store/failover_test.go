package store

import (
	"errors"
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

// TestFrozenLeaderIsNotWaitedFor: a leader that takes a request and never
// answers is given up once there is another one. A write with an idempotency
// key and a read are done by that one, in far less than the write timeout; a
// write without a key may have been done, and says so as soon.
func TestFrozenLeaderIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		c.conf = func(cfg *Config) { cfg.WriteTimeout = time.Minute }
		for _, name := range []string{"n1", "n2", "n3"} {
			c.kill(name)
			c.start(name, false)
		}
		l := c.settle(3)
		c.freeze(l.cfg.Name)
		var s *Store
		for _, other := range c.live() {
			if other != l {
				s = other
			}
		}
		begin := time.Now()
		results := make(chan error, 3)
		go func() {
			_, err := s.Register(t.Context(), Meta{IdempotencyKey: "once"}, []record.Instance{instance("keyed", "10.0.0.1")})
			results <- err
		}()
		go func() {
			_, err := s.Linearizable(t.Context())
			results <- err
		}()
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("write with a key, or read: got %v", err)
			}
		}
		if took := time.Since(begin); took > 8*time.Second {
			t.Errorf("a write with a key and a read took %s, want what an election takes", took)
		}

		c.isolate(l.cfg.Name, false)
		c.mu.Lock()
		c.mute[l.cfg.Name] = false
		c.mu.Unlock()
		l = c.settle(3)
		c.freeze(l.cfg.Name)
		for _, other := range c.live() {
			if other != l {
				s = other
			}
		}
		begin = time.Now()
		_, err := s.Register(t.Context(), Meta{}, []record.Instance{instance("plain", "10.0.0.1")})
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, errDeposed) {
			t.Errorf("write without a key: got %v, want an unknown outcome and why", err)
		}
		if took := time.Since(begin); took > 8*time.Second {
			t.Errorf("a write without a key took %s, want what an election takes", took)
		}
	})
}
