package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// restoreChunk is how much of a snapshot one command of a restore carries.
const restoreChunk = 384 << 10

// maxStaged bounds the snapshot that a restore may carry.
const maxStaged = 1 << 30

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	Position   record.Position
	ClusterID  string
	Time       time.Time // newest time that a leader stamped
	Services   int
	Instances  int
	Entries    int
	Tombstones int
	Keys       int
	Servers    int
	Members    int
	Hash       uint64
}

// Whole reports whether the state holds all that a snapshot of the cluster
// needs: a client's lacks the key and what servers keep of requests.
func (st State) Whole() bool { return st.s.cluster.seed != "" }

// WriteSnapshot writes the state to w, in the format that Restore and
// ReadSnapshotInfo read. It holds the cluster's private key: whoever has it
// can sign committed state. It streams, and needs no lock.
func (st State) WriteSnapshot(w io.Writer) error {
	b := bufio.NewWriterSize(w, frameSize)
	if err := writeSnapshot(b, st.s); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// ReadSnapshotInfo reads a whole snapshot, checks it, and tells what is in it.
func ReadSnapshotInfo(r io.Reader) (SnapshotInfo, error) {
	s, err := readSnapshot(r)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("read snapshot: %w", err)
	}
	info := SnapshotInfo{
		Position: s.pos, ClusterID: s.cluster.id, Time: time.UnixMilli(s.now).UTC(),
		Instances: s.instances, Entries: s.entries.len(), Tombstones: s.tombs.len(), Keys: s.keys.len(),
		Servers: s.servers.len(), Members: s.members.len(), Hash: s.hash,
	}
	for range (State{s}).prefix(record.ServiceKey("")) {
		info.Services++
	}
	return info, nil
}

// Restore replaces what is committed by the content of a snapshot, on every
// server at once, and returns the new position. The cluster takes on the
// snapshot's identity, so members that know it go on; servers stay as they
// are. The generation rises above the snapshot's, the cluster's and least-1,
// which is for an operator who knows of a later one. What was written after
// the snapshot, and during the restore, is lost.
//
// The snapshot travels through the log in pieces and is swapped in by the
// command that comes last. (Raft's own Restore changes the leader first: if it
// fails half-way, two histories exist.)
func (s *Store) Restore(ctx context.Context, m Meta, r io.Reader, least uint64) (record.Position, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxStaged+1))
	if err != nil {
		return record.Position{}, fmt.Errorf("read snapshot: %w", err)
	}
	if len(b) > maxStaged {
		return record.Position{}, refuse(ErrTooLarge, "snapshot: it exceeds %d bytes", maxStaged)
	}
	if _, err := readSnapshot(bytes.NewReader(b)); err != nil {
		return record.Position{}, refuse(ErrInvalid, "snapshot: %v", err)
	}
	meta := Meta{Principal: m.Principal, Remote: m.Remote}
	id := newID()
	for n := 0; n*restoreChunk < len(b); n++ {
		piece := b[n*restoreChunk : min((n+1)*restoreChunk, len(b))]
		c := &command{op: opStageRestore, meta: meta, target: id, id: strconv.Itoa(n), values: []string{string(piece)}}
		if _, err := s.step(ctx, s.cfg.WriteTimeout, c); err != nil {
			return record.Position{}, fmt.Errorf("restore: piece %d: %w", n, err)
		}
	}
	o, err := s.step(ctx, restoreTime, &command{op: opCommitRestore, meta: meta, target: id, id: strconv.FormatUint(least, 10)})
	if err != nil {
		return record.Position{}, fmt.Errorf("restore: %w", err)
	}
	return o.pos, nil
}

// restoreTime bounds how long the last step of a restore may take: every
// server reads the whole snapshot in it.
const restoreTime = 2 * time.Minute

// step commits one command of several, each within its own time.
func (s *Store) step(ctx context.Context, timeout time.Duration, c *command) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	o, err := s.execute(ctx, c)
	if err == nil {
		err = o.err
	}
	return o, err
}

// staged is a snapshot that is being restored.
type staged struct {
	id     string
	pieces []string
	size   int
}

// stageRestore keeps a piece of a snapshot. Piece 0 begins anew; another
// restore's pieces are forgotten.
func (t *txn) stageRestore(c *command) ([]item, error) {
	n, err := strconv.Atoi(c.id)
	if err != nil || len(c.values) != 1 {
		return nil, refuse(ErrInvalid, "restore: a piece without a number")
	}
	st := t.s.staged
	if n == 0 {
		st = &staged{id: c.target}
	}
	if st == nil || st.id != c.target || n != len(st.pieces) {
		return nil, refuse(ErrConflict, "restore: piece %d is out of order; another restore may have begun", n)
	}
	if st.size+len(c.values[0]) > maxStaged {
		return nil, refuse(ErrTooLarge, "restore: the snapshot exceeds %d bytes", maxStaged)
	}
	t.s.staged = &staged{id: st.id, pieces: append(st.pieces[:n:n], c.values[0]), size: st.size + len(c.values[0])}
	return t.changed(), nil
}

// commitRestore swaps the staged snapshot in. Every entry gets the index of
// the command: the positions of the new generation begin here.
func (t *txn) commitRestore(c *command) ([]item, error) {
	st := t.s.staged
	least, err := strconv.ParseUint(c.id, 10, 64)
	if err != nil || st == nil || st.id != c.target {
		return nil, refuse(ErrConflict, "restore: nothing is staged under %s; another restore may have begun", c.target)
	}
	t.s.staged = nil
	old, err := readSnapshot(&pieceReader{pieces: st.pieces})
	if err != nil {
		return nil, refuse(ErrInvalid, "restore: %v", err)
	}
	next := (&state{}).txn()
	next.s.pos = record.Position{
		Generation: max(t.s.pos.Generation, old.pos.Generation, least-min(least, 1)) + 1,
		Index:      t.s.pos.Index,
	}
	next.s.now, next.s.cluster, next.s.floor = max(t.s.now, old.now), t.s.cluster, t.s.pos.Index
	if old.cluster.id != "" {
		next.s.cluster = old.cluster
	}
	for _, e := range old.entries.all() {
		next.put(e.Key, e.Value, 0, expiresOf(e))
	}
	next.keys, next.keyAges = old.keys.edit(), old.keyAges.edit()
	next.members, next.servers = old.members.edit(), t.servers.commit().edit()
	for id, m := range t.members.all() {
		next.members.set(id, m)
	}
	next.quota = t.quota
	*t = *next
	return t.changed(), nil
}

// pieceReader reads pieces one after the other. It owns the slice, not the
// array behind it.
type pieceReader struct {
	pieces []string
	off    int // in the first piece
}

// Read implements io.Reader.
func (r *pieceReader) Read(b []byte) (int, error) {
	for len(r.pieces) > 0 && r.off == len(r.pieces[0]) {
		r.pieces, r.off = r.pieces[1:], 0
	}
	if len(r.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.pieces[0][r.off:])
	r.off += n
	return n, nil
}

// raise moves a state into the next generation without changing what it holds.
func (s *state) raise() *state {
	next := *s
	next.pos.Generation++
	return &next
}
