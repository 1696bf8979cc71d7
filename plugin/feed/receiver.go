package feed

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
	"github.com/fluid-sd/fluid/plugin/record"
)

// receiver turns the frames of one session into calls of the sink. It is a
// step function: no goroutine, no clock, no connection.
type receiver struct {
	*Client
	send     func(*feedpb.ClientFrame) error
	at       record.Position // what the sink has applied, as far as this session knows
	cluster  string          // "" until known
	full     bool            // a snapshot was asked for: one at `at` is welcome
	welcomed bool
	settled  bool // the session's first state was counted
	behind   bool
	patience time.Duration // how long the server may be silent

	staged   []record.Entry // parts of a snapshot or batch
	bytes    int64          // size of staged
	pos      record.Position
	snapshot bool   // staged belongs to a snapshot
	open     bool   // there are parts, more are to come
	partial  []byte // parts of a relay frame
}

// frame takes the next frame. After an error the session is over.
func (r *receiver) frame(f *feedpb.ServerFrame) error {
	switch f := f.GetFrame().(type) {
	case *feedpb.ServerFrame_Refused:
		return refusal(f.Refused)
	case *feedpb.ServerFrame_Welcome:
		return r.welcome(f.Welcome)
	case nil:
		return nil // of a later protocol
	default:
		if !r.welcomed {
			return fmt.Errorf("%w: %T before the welcome", ErrInvalid, f)
		}
	}
	switch f := f.GetFrame().(type) {
	case *feedpb.ServerFrame_Heartbeat:
		return r.heartbeat(f.Heartbeat)
	case *feedpb.ServerFrame_Snapshot:
		return r.snapshotPart(f.Snapshot)
	case *feedpb.ServerFrame_Batch:
		return r.batchPart(f.Batch)
	case *feedpb.ServerFrame_Relay:
		return r.relayPart(f.Relay)
	}
	return nil
}

func (r *receiver) welcome(w *feedpb.Welcome) error {
	if r.welcomed {
		return fmt.Errorf("%w: a second welcome", ErrInvalid)
	}
	if p := w.GetProtocol(); p < ProtocolMin || p > ProtocolMax {
		return fmt.Errorf("%w: the agent chose %d, the plugin speaks %d to %d; upgrade the older one", ErrProtocol, p, ProtocolMin, ProtocolMax)
	}
	if err := errors.Join(checkText("version", w.GetVersion()), checkText("implementation", w.GetImplementation())); err != nil {
		return err
	}
	if own := r.cfg.Implementation; own != RelayImplementation && own != w.GetImplementation() {
		return fmt.Errorf("%w: the agent runs %s, the plugin %s", ErrImplementation, shown(w.GetImplementation()), shown(own))
	}
	r.welcomed = true
	beat := min(max(duration(uint64(w.GetHeartbeatMs())), 10*time.Millisecond), 10*time.Second)
	r.patience = missedBeats * beat
	r.connects.Add(1)
	r.tell(true, nil)
	return nil
}

func (r *receiver) heartbeat(pb *feedpb.Heartbeat) error {
	hb, err := heartbeat(pb)
	if err != nil {
		return err
	}
	if hb.ClusterID != "" && r.cluster != "" && hb.ClusterID != r.cluster {
		return fmt.Errorf("%w: the agent belongs to cluster %s, the plugin to %s", ErrCluster, shown(hb.ClusterID), shown(r.cluster))
	}
	if r.cluster == "" {
		r.cluster = hb.ClusterID
	}
	if hb.Behind && !r.behind {
		r.Client.behind.Add(1)
	}
	r.behind = hb.Behind
	var at Hello
	if err := r.guard(func() error {
		r.sink.Heartbeat(hb)
		at = r.sink.Hello()
		return nil
	}); err != nil {
		return err
	}
	if at.Position == hb.Applied && !hb.Applied.IsZero() && at.Hash != 0 && at.Hash != hb.Hash && !r.full {
		r.diverged.Add(1)
		r.Client.full = true
		return fmt.Errorf("%w at %v: hash %x, the agent's is %x", ErrDiverged, at.Position, at.Hash, hb.Hash)
	}
	if hb.Applied == r.at && !r.at.IsZero() && !r.full {
		r.resumed()
	}
	r.report(at)
	return nil
}

// report acknowledges what the sink vouches for. A failure to send shows as the end
// of what is received, with the reason.
func (r *receiver) report(at Hello) {
	_ = r.send(&feedpb.ClientFrame{Frame: &feedpb.ClientFrame_Ack{Ack: &feedpb.Ack{
		Applied: positionPB(r.vouch(at)), ClientTtlMs: millis(at.ClientTTL),
	}}})
}

// resumed counts a session that goes on without a snapshot, once.
func (r *receiver) resumed() {
	if !r.settled {
		r.settled = true
		r.resumes.Add(1)
	}
}

// stage adds entries to the parts collected so far.
func (r *receiver) stage(entries []*feedpb.Entry, from, to uint64) error {
	for _, pb := range entries {
		e, err := entry(pb, from, to)
		if err != nil {
			return err
		}
		if r.bytes += int64(entrySize(e)); r.bytes > maxStaged {
			return fmt.Errorf("%w: more than %d bytes in one step", ErrInvalid, int64(maxStaged))
		}
		r.staged = append(r.staged, e)
	}
	return nil
}

// begin checks that a part continues the ones before it, if there are any.
func (r *receiver) begin(snapshot bool, pos record.Position) error {
	if r.open && (r.snapshot != snapshot || r.pos != pos) {
		return fmt.Errorf("%w: a part of %v among the parts of %v", ErrInvalid, pos, r.pos)
	}
	r.open, r.snapshot, r.pos = true, snapshot, pos
	return nil
}

// take returns what was staged and empties the stage.
func (r *receiver) take() []record.Entry {
	staged := r.staged
	r.staged, r.bytes, r.open = nil, 0, false
	return staged
}

func (r *receiver) snapshotPart(pb *feedpb.Snapshot) error {
	pos := position(pb.GetPosition())
	if pos.Before(r.at) || pos.IsZero() || pos == r.at && !r.full {
		return fmt.Errorf("%w: snapshot at %v for a plugin at %v", ErrInvalid, pos, r.at)
	}
	if err := r.begin(true, pos); err != nil {
		return err
	}
	for _, e := range pb.GetEntries() {
		if e.GetDeleted() {
			return fmt.Errorf("%w: a removal in a snapshot", ErrInvalid)
		}
	}
	if err := r.stage(pb.GetEntries(), 0, pos.Index); err != nil {
		return err
	}
	if pb.GetMore() {
		return nil
	}
	entries := r.take()
	var hash uint64
	for _, e := range entries {
		hash += catalog.EntryHash(e)
	}
	if uint64(len(entries)) != pb.GetCount() || hash != pb.GetHash() {
		r.Client.full = true
		return fmt.Errorf("%w: snapshot at %v has %d entries with hash %x, not %d with %x",
			ErrInvalid, pos, len(entries), hash, pb.GetCount(), pb.GetHash())
	}
	if err := r.apply(func() error { return r.sink.Snapshot(pos, slices.Values(entries), hash) }); err != nil {
		r.Client.full = true
		return fmt.Errorf("snapshot at %v: %w", pos, err)
	}
	r.full, r.Client.full, r.settled = false, false, true
	r.snapshots.Add(1)
	return r.applied(pos)
}

func (r *receiver) batchPart(pb *feedpb.Batch) error {
	prev, pos := position(pb.GetPrev()), position(pb.GetPosition())
	if prev != r.at || prev.IsZero() || !prev.Before(pos) || prev.Generation != pos.Generation {
		return fmt.Errorf("%w: batch from %v to %v for a plugin at %v", ErrInvalid, prev, pos, r.at)
	}
	if err := r.begin(false, pos); err != nil {
		return err
	}
	if err := r.stage(pb.GetEntries(), prev.Index, pos.Index); err != nil {
		return err
	}
	if pb.GetMore() {
		return nil
	}
	entries := r.take()
	if err := r.apply(func() error { return r.sink.Apply(prev, pos, entries) }); err != nil {
		// A sink that moved on by other means is resumed from where it is. One
		// that did not would refuse the same batch again.
		_ = r.guard(func() error { r.Client.full = r.sink.Hello().Position == prev; return nil })
		return fmt.Errorf("changes from %v to %v: %w", prev, pos, err)
	}
	r.resumed()
	r.batches.Add(1)
	return r.applied(pos)
}

// apply calls the sink and marks its errors.
func (r *receiver) apply(f func() error) error {
	err := r.guard(f)
	if err != nil && !errors.Is(err, ErrSink) {
		return fmt.Errorf("%w: %w", ErrSink, err)
	}
	return err
}

// applied moves on to pos and acknowledges what the sink says it has.
func (r *receiver) applied(pos record.Position) error {
	r.at = pos
	return r.guard(func() error {
		r.report(r.sink.Hello())
		return nil
	})
}

func (r *receiver) relayPart(pb *feedpb.Relay) error {
	if !r.cfg.Relay {
		return fmt.Errorf("%w: a relay frame that was not asked for", ErrInvalid)
	}
	if len(r.partial)+len(pb.GetFrame()) > MaxRelayFrame {
		return fmt.Errorf("%w: relay frame above %d bytes", ErrInvalid, MaxRelayFrame)
	}
	if r.partial == nil {
		r.partial = pb.GetFrame() // the message is not used again
	} else {
		r.partial = append(r.partial, pb.GetFrame()...)
	}
	if pb.GetMore() {
		return nil
	}
	frame := r.partial
	r.partial = nil
	if err := r.apply(func() error { return r.sink.Relay(frame) }); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	r.relayed.Add(1)
	return nil
}
