package store

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

var _ raft.BatchingFSM = (*fsm)(nil)

// fsm adapts the state machine to Raft. Raft calls its methods from one
// goroutine, except that snapshots are written by another.
type fsm struct {
	current atomic.Pointer[state]
	last    atomic.Uint64 // index of the last entry that Raft handed over
	warm    uint64        // index up to which Open applied the log before Raft started
	mark    *mark         // nil in tests of the state machine alone
	audit   func(a *applied)
	stop    func(error) // called once, when the state machine stops
	stuck   func()      // called when snapshots are installed over and over
	loop    loopWatch
	decoded []command // memory for those of one batch, at most maxDecoded

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	ahead   []waiter
	err     error
}

// maxDecoded bounds the memory for commands that is kept between batches.
const maxDecoded = 4 * maxCoalesced

// waiter waits for a position that is not reached yet.
type waiter struct {
	after record.Position
	ch    chan struct{}
}

func newFSM() *fsm {
	f := &fsm{changed: make(chan struct{}), stop: func(error) {}, stuck: func() {}}
	f.current.Store(&state{})
	return f
}

func (f *fsm) state() State { return State{f.current.Load()} }

// publish makes a state visible and wakes who waits for it.
func (f *fsm) publish(s *state) {
	f.mu.Lock()
	defer f.mu.Unlock()
	moved := f.current.Load().pos.Before(s.pos)
	f.current.Store(s)
	if !moved {
		return
	}
	close(f.changed)
	f.changed = make(chan struct{})
	kept := f.ahead[:0]
	for _, w := range f.ahead {
		if w.after.Before(s.pos) {
			close(w.ch)
		} else {
			kept = append(kept, w)
		}
	}
	clear(f.ahead[len(kept):])
	f.ahead = kept
}

// closed is a channel that is closed.
var closed = func() chan struct{} { ch := make(chan struct{}); close(ch); return ch }()

// changedAfter returns a channel that is closed once the position is beyond after.
func (f *fsm) changedAfter(after record.Position) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch pos := f.current.Load().pos; {
	case after.Before(pos):
		return closed
	case after == pos:
		return f.changed
	}
	w := waiter{after: after, ch: make(chan struct{})}
	f.ahead = append(f.ahead, w)
	return w.ch
}

// fail stops the state machine: it stays readable and applies nothing more.
func (f *fsm) fail(err error) error {
	f.mu.Lock()
	first := f.err == nil
	if first {
		f.err = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	err = f.err
	f.mu.Unlock()
	if first {
		f.stop(err)
	}
	return err
}

func (f *fsm) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The response to a command entry is
// []outcome, one per command, or an error if the state machine has stopped.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	err := f.failed()
	if err == nil {
		err = f.applyBatch(logs, out)
	}
	if err != nil {
		for i := range out {
			if out[i] == nil {
				out[i] = err
			}
		}
	}
	return out
}

func (f *fsm) applyBatch(logs []*raft.Log, out []any) (err error) {
	var done []applied
	cur := f.current.Load()
	t := cur.txn()
	t.decoded = f.decoded[:0]
	defer func() {
		f.decoded = nil
		if cap(t.decoded) <= maxDecoded {
			f.decoded = t.decoded
			clear(f.decoded)
		}
		if p := recover(); p != nil {
			err = f.fail(fmt.Errorf("apply entries %d to %d: panic: %v", logs[0].Index, logs[len(logs)-1].Index, p))
		}
	}()
	for i, l := range logs {
		if l.Type != raft.LogCommand || l.Index <= t.s.pos.Index {
			continue // an entry that was applied before Raft started
		}
		a, aerr := t.applyEntry(l.Index, string(l.Data))
		if aerr != nil {
			err = aerr
			break
		}
		out[i] = a.outcomes
		done = append(done, a)
	}
	if len(done) > 0 {
		f.publish(t.commit())
		for i := range done {
			if f.audit != nil {
				f.audit(&done[i])
			}
		}
	}
	if err != nil {
		return f.fail(err)
	}
	f.last.Store(logs[len(logs)-1].Index)
	if f.mark != nil {
		// Entries that are handed over again do not take the mark back.
		f.mark.set(max(logs[len(logs)-1].Index, t.s.pos.Index))
	}
	return nil
}

// rewind prepares for a Raft that is started anew and hands over entries again.
func (f *fsm) rewind() {
	f.warm = max(f.warm, f.last.Load())
	f.last.Store(0)
}

// applied is an entry, and what became of its commands.
type applied struct {
	index    uint64
	time     int64 // that the leader stamped
	commands []command
	outcomes []outcome
}

// applyEntry applies one log entry. An error means that this version cannot
// know what the entry does.
func (t *txn) applyEntry(index uint64, data string) (applied, error) {
	e, err := decodeEntry(data)
	if err != nil {
		return applied{}, fmt.Errorf("entry %d: %w; run the agent version that wrote it", index, err)
	}
	from := len(t.decoded)
	for _, raw := range e.commands {
		c, err := decodeCommand(raw)
		if err == nil && c.op != opRegister {
			// The state keeps strings of it, which must not keep the whole entry.
			c, err = decodeCommand(strings.Clone(raw))
		}
		if err != nil {
			return applied{}, fmt.Errorf("entry %d: %w; run the agent version that wrote it", index, err)
		}
		t.decoded = append(t.decoded, c)
	}
	commands := t.decoded[from:]
	t.begin(index, &e)
	outcomes := make([]outcome, len(commands))
	for i := range commands {
		outcomes[i] = t.apply(&commands[i])
	}
	t.end()
	return applied{index: index, time: e.time, commands: commands, outcomes: outcomes}, nil
}

// errReplaying is returned for a snapshot asked for while Raft still hands
// over entries that Open has applied: its label would be older than its content.
var errReplaying = errors.New("the log is still being replayed")

// Snapshot implements raft.FSM in constant time.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.failed(); err != nil {
		return nil, err
	}
	if f.last.Load() < f.warm {
		return nil, errReplaying
	}
	return &fsmSnapshot{f.current.Load()}, nil
}

// Restore implements raft.FSM: it reads the snapshot aside and swaps it in if
// it is not older than what is here.
func (f *fsm) Restore(rc io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, rc.Close()) }()
	s, err := readSnapshot(rc)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	cur := f.current.Load()
	if a, b := cur.cluster.id, s.cluster.id; a != "" && b != "" && a != b && s.pos.Generation <= cur.pos.Generation {
		return fmt.Errorf("%w: this server is of cluster %s, the snapshot of cluster %s", ErrOtherCluster, a, b)
	}
	if f.mark != nil {
		f.mark.set(s.pos.Index)
	}
	if !s.pos.Before(cur.pos) {
		f.publish(s)
	}
	if f.loop.installed(f.current.Load().pos, time.Now()) {
		f.stuck()
	}
	return nil
}

// fsmSnapshot is a state on its way into a snapshot.
type fsmSnapshot struct{ s *state }

// Persist implements raft.FSMSnapshot.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(sink, s.s); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *fsmSnapshot) Release() {}
