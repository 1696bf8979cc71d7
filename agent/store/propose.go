package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// While Raft works on an entry, further commands gather into the next one: a
// lone writer waits for nobody, and many writers share an fsync and a message.
// Once manyCommands have gathered, they need not wait for the entry before;
// there are at most maxInFlight at once.
const (
	maxInFlight  = 2
	manyCommands = 24
)

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
	var buf [512]byte
	raw := string(c.append(buf[:0]))
	if len(raw) > MaxEntry-entryOverhead {
		return outcome{}, refuse(ErrTooLarge, "request: %d bytes exceed the limit of %d; split it", len(raw), MaxEntry-entryOverhead)
	}
	p, ok := s.proposals.Get().(*proposal)
	if !ok {
		p = &proposal{done: make(chan proposed, 1)}
	}
	p.raw = raw
	p.taken.Store(false)
	if s.cfg.single {
		s.submit([]*proposal{p}, func() {})
	} else if !s.queue.add(p) {
		return outcome{}, fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
	}
	select {
	case r := <-p.done:
		s.proposals.Put(p) // whoever answered has let go of it
		return r.outcome, r.err
	case <-ctx.Done():
		if p.taken.CompareAndSwap(false, true) {
			return outcome{}, fmt.Errorf("%w: %w before the write could start", ErrUnavailable, ctx.Err())
		}
		return outcome{}, fmt.Errorf("%w: no answer from the log: %w", ErrUnknown, ctx.Err())
	}
}

// proposals are those that wait for an entry.
type proposals struct {
	news chan struct{} // holds one when next may have something to give

	mu     sync.Mutex // guards what follows
	list   []*proposal
	size   int // bytes of the commands
	flying int // entries that Raft works on
	closed bool
}

func newProposals() *proposals { return &proposals{news: make(chan struct{}, 1)} }

// poke makes proposeLoop look.
func (q *proposals) poke() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// add puts a proposal at the end, and reports false if nobody takes it any more.
func (q *proposals) add(p *proposal) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.list, q.size = append(q.list, p), q.size+len(p.raw)
	if q.ready() {
		q.poke()
	}
	return true
}

// ready reports whether it is time for another entry.
func (q *proposals) ready() bool {
	switch {
	case len(q.list) == 0 || q.flying >= maxInFlight:
		return false
	case q.flying > 0:
		return len(q.list) >= manyCommands || q.size >= maxCoalescedBytes
	}
	return true
}

// waiting returns how many proposals wait, 0 if it is not time for an entry.
func (q *proposals) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ready() {
		return 0
	}
	return len(q.list)
}

// next takes what goes into the next entry. The caller calls landed when Raft
// has decided it.
func (q *proposals) next() []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ready() {
		return nil
	}
	n, bytes := 0, 0
	for n < len(q.list) && n < maxCoalesced && (n == 0 || bytes+len(q.list[n].raw) <= maxCoalescedBytes) {
		bytes += len(q.list[n].raw)
		n++
	}
	batch := q.list[:n:n]
	q.list, q.size = append([]*proposal(nil), q.list[n:]...), q.size-bytes
	q.flying++
	return batch
}

func (q *proposals) landed() {
	q.mu.Lock()
	q.flying--
	q.mu.Unlock()
	q.poke()
}

// end returns what waits, and lets nothing else in.
func (q *proposals) end() []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	return q.list
}

// proposeLoop gathers commands into entries.
func (s *Store) proposeLoop() {
	for {
		select {
		case <-s.queue.news:
		case <-s.ctx.Done():
			answer(s.queue.end(), nil, fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed))
			return
		}
		// Writers that have just been answered are about to ask again. Let those
		// go first who can go now, else the first of them gets an entry of its own.
		for n, again := 0, s.queue.waiting(); again > n && n < maxCoalesced; {
			n = again
			runtime.Gosched()
			again = s.queue.waiting()
		}
		for batch := s.queue.next(); batch != nil; batch = s.queue.next() {
			s.submit(batch, s.queue.landed)
		}
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
	f := s.node().Apply(e.append(make([]byte, 0, e.room())), s.cfg.WriteTimeout)
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
