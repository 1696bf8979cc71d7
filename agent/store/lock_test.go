package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestCloseWhileHalting: a state machine that stopped halts Raft, which takes
// until the requests in it are over; closing the store meanwhile must wait for
// that and must not keep it from happening.
func TestCloseWhileHalting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		s := c.settle(3)
		if !s.gate.enter() { // a request that Raft does not answer
			t.Fatal("the gate is shut")
		}
		_ = s.fsm.fail(errors.New("test"))
		<-s.Stopped()
		synctest.Wait() // halt waits for the request
		start := time.Now()
		if err := s.close(false); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < drainTime || took > 3*drainTime {
			t.Errorf("closing took %s, want it to wait for halt, which waits %s", took, drainTime)
		}
		s.gate.leave()
	})
}

// TestJoinGivesUpWaiting: who waits for another server's change to end waits no
// longer than its request does.
func TestJoinGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1")
		s := c.settle(1)
		s.changing.acquire()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Remove(ctx, Meta{}, "x"); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("remove: %v", err)
		}
		if _, err := s.Join(ctx, Meta{}, JoinRequest{ServerInfo: ServerInfo{ID: "x", Name: "x"}, Addr: "x"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("join: %v", err)
		}
		s.changing.release()
	})
}
