package table

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Key names one answer: a name, and what else the answer depends on besides
// the data (its type, and who asks how), as the caller packs it.
type Key struct {
	Name string
	Tag  uint64
}

// Answers is a bounded store of worked-out answers. A hit takes no lock and
// moves nothing in a list: it sets one bit, which saves the entry when the
// next victim is looked for (second chance). The zero Answers is not usable;
// see NewAnswers.
type Answers[A any] struct {
	seed     seed
	current  func(*A) bool // nil: all are
	capacity atomic.Int64
	ways     atomic.Pointer[ways[A]]
	hits     [stripes]stripe
	misses   atomic.Uint64
	evicted  atomic.Uint64

	mu      sync.Mutex // held while an entry is put or taken out
	count   int        // guarded by mu
	hand    uint64     // guarded by mu: the set that is looked at next for a victim
	cleaned uint64     // guarded by mu: the set that is cleaned next
}

// stripes spreads the hit counter over cache lines.
const stripes = 8

type stripe struct {
	n atomic.Uint64
	_ [56]byte
}

// ways are sets of a few entries each; a key can be in one set only. A set is
// one cache line: a byte of hash for each entry, and the entries.
type ways[A any] struct {
	mask uint64
	sets []set[A]
}

const setSize = 7

type set[A any] struct {
	tags    atomic.Uint64 // byte i: low byte of entry i's hash, a hint only
	entries [setSize]atomic.Pointer[entry[A]]
}

type entry[A any] struct {
	key    Key
	hash   uint64
	used   atomic.Bool // since the hand passed
	answer A
}

// Stats counts what happened to a store since it was made.
type Stats struct {
	Hits, Misses, Evictions uint64
	Entries                 int
}

// NewAnswers returns a store for at most capacity answers. With capacity 0 it
// keeps none. Answers that current reports out of date are found by Get all the
// same, but they are the first to go and the store does not grow for them.
// Without current, which must be quick, all are up to date.
func NewAnswers[A any](capacity int, current func(*A) bool) *Answers[A] {
	s := &Answers[A]{seed: newSeed(), current: current}
	s.capacity.Store(int64(capacity))
	s.ways.Store(newWays[A](1))
	return s
}

func newWays[A any](sets uint64) *ways[A] {
	return &ways[A]{mask: sets - 1, sets: make([]set[A], sets)}
}

func (s *Answers[A]) hash(k Key) uint64 {
	return s.seed.hash(k.Name) ^ (k.Tag+1)*0x9e3779b97f4a7c15
}

// Get returns the answer kept under a key, nil if there is none.
func (s *Answers[A]) Get(k Key) *A {
	h := s.hash(k)
	if e := s.ways.Load().find(h, k); e != nil {
		if !e.used.Load() {
			e.used.Store(true)
		}
		s.hits[h>>60%stripes].n.Add(1)
		return &e.answer
	}
	s.misses.Add(1)
	return nil
}

func (w *ways[A]) find(h uint64, k Key) *entry[A] {
	st := &w.sets[h>>8&w.mask]
	const low, high = 0x0101010101010101, 0x8080808080808080
	x := st.tags.Load() ^ (h&0xff)*low
	for match := (x - low) &^ x & high; match != 0; match &= match - 1 {
		i := bits.TrailingZeros64(match) / 8
		if i >= setSize {
			return nil
		}
		if e := st.entries[i].Load(); e != nil && e.hash == h && e.key == k {
			return e
		}
	}
	return nil
}

// Put keeps an answer under a key, in place of the one before. It keeps
// nothing if another goroutine is putting just now, so that no query waits.
// What Get returns of it is not changed.
func (s *Answers[A]) Put(k Key, answer A) {
	capacity := int(s.capacity.Load())
	if capacity <= 0 || !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	h := s.hash(k)
	w := s.ways.Load()
	e := &entry[A]{key: k, hash: h, answer: answer}
	if w.replace(h, k, e) {
		return
	}
	s.insert(s.room(w, capacity), e)
}

// room makes room for one more entry.
func (s *Answers[A]) room(w *ways[A], capacity int) *ways[A] {
	for range cleanSets {
		s.clean(w)
	}
	for s.count >= capacity {
		s.sweep(w)
	}
	// A set is given 3.5 entries on average before the sets are doubled, so
	// that few overflow.
	if 2*(s.count+1) > setSize*len(w.sets) {
		return s.grow(w)
	}
	return w
}

// SetCapacity changes the bound, evicting what exceeds it.
func (s *Answers[A]) SetCapacity(capacity int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity.Store(int64(capacity))
	for s.count > max(capacity, 0) {
		s.sweep(s.ways.Load())
	}
}

// Stats returns the counters.
func (s *Answers[A]) Stats() Stats {
	st := Stats{Misses: s.misses.Load(), Evictions: s.evicted.Load()}
	for i := range s.hits {
		st.Hits += s.hits[i].n.Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Entries = s.count
	return st
}

func (w *ways[A]) replace(h uint64, k Key, e *entry[A]) bool {
	st := &w.sets[h>>8&w.mask]
	for i := range st.entries {
		if old := st.entries[i].Load(); old != nil && old.hash == h && old.key == k {
			e.used.Store(old.used.Load())
			st.entries[i].Store(e)
			return true
		}
	}
	return false
}

// insert puts a new entry into its set: into a free place, over one that is out
// of date, over one that was not used since the hand came by, or, if all were,
// over one that the hash picks.
func (s *Answers[A]) insert(w *ways[A], e *entry[A]) {
	st := &w.sets[e.hash>>8&w.mask]
	free, outdated, unused := -1, -1, -1
	for i := range st.entries {
		old := st.entries[i].Load()
		switch {
		case old == nil:
			free = i
		case !s.keeps(old):
			outdated = i
		case !old.used.Load():
			unused = i
		}
	}
	at := int(e.hash>>4&0xf) % setSize
	switch {
	case free >= 0:
		at = free
	case outdated >= 0:
		at = outdated
	case unused >= 0:
		at = unused
	default: // each has been used; from now on it counts who is again
		for i := range st.entries {
			st.entries[i].Load().used.Store(false)
		}
	}
	if st.entries[at].Load() != nil {
		s.evict(st, at)
	}
	s.count++
	shift := at * 8
	st.entries[at].Store(e)
	st.tags.Store(st.tags.Load()&^(0xff<<shift) | (e.hash&0xff)<<shift)
}

// sweep evicts one entry: the first that was not used since the hand came by
// last. It takes one of a set at most, so that the others of the set keep their
// chance until the hand comes again.
func (s *Answers[A]) sweep(w *ways[A]) {
	for {
		st := &w.sets[s.hand&w.mask]
		s.hand++
		victim := -1
		for i := range st.entries {
			e := st.entries[i].Load()
			if e != nil && !e.used.Swap(false) && victim < 0 {
				victim = i
			}
		}
		if victim >= 0 {
			s.evict(st, victim)
			return
		}
	}
}

// evict takes an entry out.
func (s *Answers[A]) evict(st *set[A], i int) {
	if s.keeps(st.entries[i].Swap(nil)) {
		s.evicted.Add(1)
	}
	s.count--
}

// keeps reports whether an entry is up to date.
func (s *Answers[A]) keeps(e *entry[A]) bool { return s.current == nil || s.current(&e.answer) }

// cleanSets is how many sets each Put cleans: between two times that the sets
// are doubled, or that the hand of sweep comes round, all are cleaned more than
// once, and no Put takes long.
const cleanSets = 2

// clean drops what is out of date from the set whose turn it is.
func (s *Answers[A]) clean(w *ways[A]) {
	if s.current == nil {
		return
	}
	st := &w.sets[s.cleaned&w.mask]
	s.cleaned++
	for i := range st.entries {
		if e := st.entries[i].Load(); e != nil && !s.keeps(e) {
			s.evict(st, i)
		}
	}
}

func (s *Answers[A]) grow(w *ways[A]) *ways[A] {
	grown := newWays[A](uint64(len(w.sets)) * 2)
	s.count = 0
	for i := range w.sets {
		for j := range w.sets[i].entries {
			if e := w.sets[i].entries[j].Load(); e != nil {
				used := e.used.Load()
				s.insert(grown, e)
				e.used.Store(used)
			}
		}
	}
	s.hand = 0
	s.ways.Store(grown)
	return grown
}
