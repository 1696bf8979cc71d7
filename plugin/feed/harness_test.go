package feed

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memState is the reference state: a map from key to entry.
type memState struct {
	pos     record.Position
	floor   uint64 // tombstones up to here are gone
	cluster string
	all     map[record.Key]record.Entry // live and deleted
}

func (s *memState) Position() record.Position { return s.pos }
func (s *memState) ClusterID() string         { return s.cluster }
func (s *memState) Hash() uint64              { return hashOf(s.all) }

func (s *memState) Entries() iter.Seq[record.Entry] {
	return func(yield func(record.Entry) bool) {
		for _, e := range s.all {
			if !e.Deleted && !yield(e) {
				return
			}
		}
	}
}

func (s *memState) Since(pos record.Position) ([]record.Entry, bool) {
	if pos.Generation != s.pos.Generation || pos.Index < s.floor {
		return nil, false
	}
	var out []record.Entry
	for _, e := range s.all {
		if e.Index > pos.Index {
			out = append(out, e)
		}
	}
	return out, true
}

func hashOf(all map[record.Key]record.Entry) (sum uint64) {
	for _, e := range all {
		sum += catalog.EntryHash(e)
	}
	return sum
}

// memSource is a source whose whole history is kept, so that it can go back
// to an earlier state as an agent does that restarts without a quorum.
type memSource struct {
	mu      sync.Mutex
	history []*memState
	cur     int // index of the current state
	changed chan struct{}
	status  Status
}

func newSource() *memSource {
	return &memSource{history: []*memState{{cluster: "c1"}}, changed: make(chan struct{}), status: Status{LeaderKnown: true}}
}

func (s *memSource) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history[s.cur]
}

func (s *memSource) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Commit = s.history[s.cur].pos
	return st
}

func (s *memSource) Changed(after record.Position) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after.Before(s.history[s.cur].pos) {
		done := make(chan struct{})
		close(done)
		return done
	}
	return s.changed
}

// edit appends a state; f may change all of it. Its position is the next one.
func (s *memSource) edit(f func(st *memState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.history[len(s.history)-1]
	next := &memState{pos: last.pos, floor: last.floor, cluster: last.cluster, all: maps.Clone(last.all)}
	if next.all == nil {
		next.all = map[record.Key]record.Entry{}
	}
	next.pos.Index++
	next.pos.Generation = max(next.pos.Generation, 1)
	f(next)
	s.history = append(s.history, next)
	s.cur = len(s.history) - 1
	s.notify()
}

func (s *memSource) put(key, value string) {
	s.edit(func(st *memState) {
		st.all[record.Key(key)] = record.Entry{Key: record.Key(key), Value: value, Index: st.pos.Index}
	})
}

func (s *memSource) del(key string) {
	s.edit(func(st *memState) {
		st.all[record.Key(key)] = record.Entry{Key: record.Key(key), Index: st.pos.Index, Deleted: true}
	})
}

// compact drops the tombstones.
func (s *memSource) compact() {
	s.edit(func(st *memState) {
		maps.DeleteFunc(st.all, func(_ record.Key, e record.Entry) bool { return e.Deleted })
		st.floor = st.pos.Index
	})
}

// back makes an earlier state the current one; catchUp undoes it.
func (s *memSource) back(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur = max(0, s.cur-n)
}

func (s *memSource) catchUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur = len(s.history) - 1
	s.notify()
}

func (s *memSource) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// hashAt returns the hash that the state at pos had.
func (s *memSource) hashAt(pos record.Position) (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.history {
		if st.pos == pos {
			return st.Hash(), true
		}
	}
	return 0, false
}

// memSink checks every step against the history of the source.
type memSink struct {
	src *memSource

	mu      sync.Mutex
	pos     record.Position
	all     map[record.Key]record.Entry
	cluster string
	vec     Vector
	ttl     time.Duration
	beats   []Heartbeat
	frames  []string
	states  []string
	fed     record.Position // the last position that the feed gave and the sink took
	lossy   bool            // a restart would lose what it has
	spoiled bool            // the content was changed behind the feed's back
	bad     error           // broken promises
	refuse  error           // returned once by the next Snapshot or Apply
	panics  bool            // the next Apply panics
	delay   time.Duration
}

func newSink(src *memSource) *memSink { return &memSink{src: src, ttl: 5 * time.Second} }

func (k *memSink) Hello() Hello {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Hello{Position: k.pos, Hash: hashOf(k.all), ClusterID: k.cluster, Vector: k.vec, ClientTTL: k.ttl, Zones: []string{"fluid.internal."}, Volatile: k.lossy}
}

func (k *memSink) Snapshot(pos record.Position, entries iter.Seq[record.Entry], hash uint64) error {
	all := map[record.Key]record.Entry{}
	for e := range entries {
		all[e.Key] = e
	}
	if got := hashOf(all); got != hash {
		k.fail(fmt.Errorf("snapshot at %v: hash %x, want %x", pos, got, hash))
	}
	k.do(func() { k.spoiled = false })
	return k.become(pos, all)
}

func (k *memSink) Apply(prev, pos record.Position, entries []record.Entry) error {
	k.mu.Lock()
	all, at := maps.Clone(k.all), k.pos
	boom := k.panics
	k.panics = false
	k.mu.Unlock()
	if boom {
		panic("sink")
	}
	if !at.Before(pos) {
		return nil
	}
	if prev != at {
		return errors.New("gap")
	}
	for _, e := range entries {
		if e.Deleted {
			delete(all, e.Key)
		} else {
			all[e.Key] = e
		}
	}
	return k.become(pos, all)
}

func (k *memSink) become(pos record.Position, all map[record.Key]record.Entry) error {
	want, ok := k.src.hashAt(pos)
	k.mu.Lock()
	if !ok || hashOf(all) != want && !k.spoiled {
		k.bad = errors.Join(k.bad, fmt.Errorf("no state of the source at %v has this content", pos))
	}
	if pos.Before(k.fed) {
		k.bad = errors.Join(k.bad, fmt.Errorf("went back from %v to %v", k.fed, pos))
	}
	delay, refuse := k.delay, k.refuse
	k.refuse = nil
	if refuse == nil {
		k.fed = pos
	}
	k.mu.Unlock()
	if delay > 0 {
		<-time.After(delay)
	}
	if refuse != nil {
		return refuse
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !pos.Before(k.pos) {
		k.pos, k.all = pos, all
	}
	return nil
}

// spoil changes the content, not the position. It is called with mu held.
func (k *memSink) spoil() {
	k.all = map[record.Key]record.Entry{"i/forged/1": {Key: "i/forged/1", Value: "f", Index: 1}}
	k.spoiled = true
}

func (k *memSink) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bad = errors.Join(k.bad, err)
}

func (k *memSink) Heartbeat(hb Heartbeat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.beats = append(k.beats, hb)
	k.cluster = hb.ClusterID
}

func (k *memSink) Relay(frame []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.frames = append(k.frames, string(frame))
	return nil
}

func (k *memSink) State(connected bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.states = append(k.states, fmt.Sprintf("%v %v", connected, err))
}

func (k *memSink) position() record.Position {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pos
}

// do runs f with the sink's lock held.
func (k *memSink) do(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}
