package store

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Timing of the guards against faults of raft 1.8.0.
const (
	// stallDeadline is how long a write to the log may take, stallLimit how
	// long one that took longer may take to end before the server gives up.
	stallDeadline = 10 * time.Second
	stallLimit    = 60 * time.Second
	// loopInstalls installations of a snapshot within loopWindow that bring
	// nothing new are a loop.
	loopInstalls = 3
	loopWindow   = 60 * time.Second
)

// errStalled is returned for writes to a log whose disk does not answer.
var errStalled = errors.New("the disk of the log does not answer")

// stallGuard bounds how long a write may hold up Raft. A leader's heartbeats
// do not depend on its disk: without a bound, one whose disk hangs stays
// leader and no write ever ends (raft issues 503 and 614). With it, the write
// fails, the leader steps down, and the guard lets nothing else through,
// because the write that hangs may still happen: the log would then hold an
// entry that Raft believes was not stored. Raft is restarted once it is over.
type stallGuard struct {
	stalled func(over <-chan error) // called when a write took too long
	slow    func()                  // called before each write; for tests

	mu       sync.Mutex // guards what follows
	poisoned chan struct{}
	released bool
}

// write runs f, but waits for it no longer than the deadline.
func (g *stallGuard) write(f func() error) error {
	if err := g.failed(); err != nil {
		return err
	}
	over := make(chan error, 1)
	go func() {
		if g.slow != nil {
			g.slow()
		}
		over <- f()
	}()
	t := time.NewTimer(stallDeadline)
	defer t.Stop()
	select {
	case err := <-over:
		return err
	case <-t.C:
	}
	g.mu.Lock()
	g.poisoned = make(chan struct{})
	g.mu.Unlock()
	if g.stalled != nil {
		g.stalled(over)
	}
	return errStalled
}

// failed returns errStalled while a write hangs.
func (g *stallGuard) failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.poisoned != nil {
		return errStalled
	}
	return nil
}

// wait blocks while a write hangs. Raft cannot be told that its term or vote
// was not stored: it panics.
func (g *stallGuard) wait() {
	g.mu.Lock()
	poisoned := g.poisoned
	if g.released {
		poisoned = nil
	}
	g.mu.Unlock()
	if poisoned != nil {
		<-poisoned
	}
}

// heal lets writes through again.
func (g *stallGuard) heal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.poisoned != nil && !g.released {
		close(g.poisoned)
	}
	g.poisoned = nil
}

// release ends all waiting, so that Raft can stop.
func (g *stallGuard) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.poisoned != nil && !g.released {
		close(g.poisoned)
	}
	g.released = true
}

// onStall restarts Raft when the write that hangs is over, and stops the
// server if it is not over in time.
func (s *Store) onStall(over <-chan error) {
	s.log.Error("a write to the log takes too long, stepping down", "deadline", stallDeadline)
	s.loops.Go(func() {
		t := time.NewTimer(stallLimit)
		defer t.Stop()
		select {
		case <-over:
			s.disk.log.guard.heal()
			s.restart("a write to the log took too long")
		case <-t.C:
			_ = s.fsm.fail(fmt.Errorf("%w for %s", errStalled, stallDeadline+stallLimit))
		case <-s.ctx.Done():
		}
	})
}

// loopWatch finds out when the leader installs snapshots for ever: a follower
// whose log has a divergent tail beyond the snapshot's index forgets the log,
// but not where it ended, and refuses what follows the snapshot (raft issue
// 697). Only starting Raft anew makes it look again.
type loopWatch struct {
	pos   record.Position
	times []time.Time
}

// installed notes a snapshot after which the state is at pos, and reports
// whether that is a loop.
func (w *loopWatch) installed(pos record.Position, now time.Time) bool {
	if pos != w.pos {
		w.pos, w.times = pos, nil
	}
	w.times = append(w.times, now)
	if n := len(w.times); n > loopInstalls {
		w.times = w.times[n-loopInstalls:]
	}
	if len(w.times) < loopInstalls || now.Sub(w.times[0]) > loopWindow {
		return false
	}
	w.times = nil
	return true
}

// restart stops Raft and starts it anew on the same files and transport. The
// state stays readable all the time, and does not go back.
func (s *Store) restart(why string) {
	s.starting.acquire()
	defer s.starting.release()
	if s.ctx.Err() != nil || s.fsm.failed() != nil {
		return
	}
	s.log.Warn("restarting raft", "reason", why)
	s.gate.shut()
	if err := s.node().Shutdown().Error(); err != nil {
		_ = s.fsm.fail(fmt.Errorf("restart raft: %w", err))
		return
	}
	s.fsm.rewind()
	select {
	case s.leaderCh <- false:
	case <-s.ctx.Done():
		return
	}
	if err := s.startRaft(); err != nil {
		_ = s.fsm.fail(fmt.Errorf("restart raft: %w", err))
		return
	}
	s.gate.open()
	s.restarts.Add(1)
	s.hasten()
}
