package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// maxInFlight is how many entries Raft may work on at once. While it works on
// that many, further commands gather into the next entry: a lone writer waits
// for nobody, and many writers share an fsync and a message. Two keep Raft busy;
// more make entries small.
const maxInFlight = 2

// maxCoalesced bounds the commands, maxCoalescedBytes the bytes that are
// gathered into one entry.
const (
	maxCoalesced      = 1024
	maxCoalescedBytes = 256 << 10
)

// diskPeriod is how long a look at a disk with room counts. A disk is not
// filled from MinFree in that time by a log that is fsynced.
const diskPeriod = 10 * time.Millisecond

// proposal is a command on its way into the log.
type proposal struct {
	raw   string // encoded command
	done  chan proposed
	taken atomic.Bool // by the proposer, or by a caller that gave up
}

type proposed struct {
	outcome outcome
	err     error
}

// propose commits a command and returns its outcome. The error is nil if and
// only if the command was applied (the outcome may still be a refusal); it
// wraps ErrUnavailable if the command is certainly not in any log, and
// ErrUnknown if it may be.
func (s *Store) propose(ctx context.Context, c *command) (outcome, error) {
	if err := s.fsm.failed(); err != nil {
		return outcome{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := s.allowed(c.op); err != nil {
		return outcome{}, err
	}
	raw := string(c.append(nil))
	if len(raw) > MaxEntry-entryOverhead {
		return outcome{}, refuse(ErrTooLarge, "request: %d bytes exceed the limit of %d; split it", len(raw), MaxEntry-entryOverhead)
	}
	p := &proposal{raw: raw, done: make(chan proposed, 1)}
	if s.cfg.single {
		s.submit([]*proposal{p}, func() {})
	} else {
		select {
		case s.queue <- p:
		case <-ctx.Done():
			return outcome{}, fmt.Errorf("%w: %w before the write could start", ErrUnavailable, ctx.Err())
		case <-s.ctx.Done():
			return outcome{}, fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
		}
	}
	select {
	case r := <-p.done:
		return r.outcome, r.err
	case <-ctx.Done():
		if p.taken.CompareAndSwap(false, true) {
			return outcome{}, fmt.Errorf("%w: %w before the write could start", ErrUnavailable, ctx.Err())
		}
		return outcome{}, fmt.Errorf("%w: no answer from the log: %w", ErrUnknown, ctx.Err())
	}
}

// proposeLoop gathers commands into entries.
func (s *Store) proposeLoop() {
	var waiting []*proposal
	size := 0
	add := func(p *proposal) { waiting, size = append(waiting, p), size+len(p.raw) }
	for {
		if len(waiting) == 0 {
			select {
			case p := <-s.queue:
				add(p)
			case <-s.ctx.Done():
				return
			}
		}
		queue := s.queue
		if len(waiting) >= maxCoalesced || size >= maxCoalescedBytes {
			queue = nil
		}
		select {
		case p := <-queue:
			add(p)
			continue
		case <-s.ctx.Done():
			for _, p := range waiting {
				p.done <- proposed{err: fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)}
			}
			return
		default:
		}
		select {
		case p := <-queue:
			add(p)
			continue
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			continue
		}
		n, bytes := 0, 0
		for n < len(waiting) && (n == 0 || bytes+len(waiting[n].raw) <= maxCoalescedBytes) {
			bytes += len(waiting[n].raw)
			n++
		}
		batch := append([]*proposal(nil), waiting[:n]...)
		waiting = append(waiting[:0], waiting[n:]...)
		size -= bytes
		s.submit(batch, func() { <-s.slots })
	}
}

// submit hands one entry to Raft, and calls free when it is decided.
func (s *Store) submit(batch []*proposal, free func()) {
	kept := batch[:0]
	e := logEntry{time: time.Now().UnixMilli(), maxInstances: s.cfg.MaxInstances, maxBytes: s.cfg.MaxBytes}
	for _, p := range batch {
		if p.taken.CompareAndSwap(false, true) {
			kept = append(kept, p)
			e.commands = append(e.commands, p.raw)
		}
	}
	if len(kept) == 0 {
		free()
		return
	}
	if err := s.checkDisk(); err != nil {
		free()
		answer(kept, nil, err)
		return
	}
	if !s.gate.enter() {
		free()
		answer(kept, nil, fmt.Errorf("%w: raft is stopping", ErrUnavailable))
		return
	}
	f := s.node().Apply(e.append(nil), s.cfg.WriteTimeout)
	go func() {
		response, err := s.committed(f, kept)
		s.gate.leave()
		free()
		if err != nil {
			answer(kept, nil, s.outcomeOf(err))
			return
		}
		switch r := response.(type) {
		case []outcome:
			answer(kept, r, nil)
		case error:
			// Committed, but not applied by this version.
			answer(kept, nil, fmt.Errorf("%w: %w", ErrUnknown, r))
		}
	}()
}

func answer(batch []*proposal, outcomes []outcome, err error) {
	for i, p := range batch {
		if err != nil {
			p.done <- proposed{err: err}
		} else {
			p.done <- proposed{outcome: outcomes[i]}
		}
	}
}

// outcomeOf maps an error of Raft, naming the leader where another one is.
func (s *Store) outcomeOf(err error) error {
	if errors.Is(err, raft.ErrNotLeader) {
		return &NotLeaderError{Leader: s.Leader()}
	}
	return raftOutcome(err)
}

// checkDisk refuses an entry before the disk is full: a log that cannot write
// its metadata ends the process.
func (s *Store) checkDisk() error {
	if now := time.Now().UnixNano(); now-s.roomAt.Load() < int64(diskPeriod) {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &st); err != nil {
		return nil //nolint:nilerr // the write itself will tell
	}
	if free := st.Bavail * uint64(st.Bsize); free < s.cfg.MinFree {
		return fmt.Errorf("%w: %s has %d MiB free, %d MiB are needed; free some space", ErrDiskFull, s.cfg.Dir, free>>20, s.cfg.MinFree>>20)
	}
	s.roomAt.Store(time.Now().UnixNano())
	return nil
}
