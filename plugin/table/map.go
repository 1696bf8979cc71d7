package table

import (
	"iter"
	"sync"
	"sync/atomic"
)

// Map is a map from name to value for many readers and few writers. Readers
// never wait; writers wait for each other. The zero Map is not usable; see
// NewMap.
type Map[V any] struct {
	seed  seed
	index atomic.Pointer[index[V]]

	mu    sync.Mutex // held by writers
	spare []Cell[V]  // guarded by mu: not used yet
	live  int        // guarded by mu: cells with a value
	cells int        // guarded by mu: cells in the index, with or without a value
}

// Cell is the place of one name in a Map. It outlives removal and return of
// the value for as long as anybody refers to it.
type Cell[V any] struct {
	name  string
	value atomic.Pointer[V]
}

// Name returns the name of the cell.
func (c *Cell[V]) Name() string { return c.name }

// Load returns the present value, nil if the name has none.
func (c *Cell[V]) Load() *V { return c.value.Load() }

// index is an open-addressing hash table with linear probing. Slots only ever
// go from empty to a cell, so a reader that finds an empty slot is done.
type index[V any] struct {
	mask  uint64
	slots []slot[V]
}

// slot keeps the hash beside the pointer, so that a probe reads one cache line
// and follows a pointer only when the name is almost certainly the right one.
type slot[V any] struct {
	hash atomic.Uint64 // written before cell
	cell atomic.Pointer[Cell[V]]
}

const minSlots = 16

// together is the number of cells in one piece of memory. Cells are small, and
// lookups of many names are quicker if they lie close together; but one that is
// in use keeps the others.
const together = 16

func newIndex[V any](cells int) *index[V] {
	n := uint64(minSlots)
	for n < uint64(cells)*2 {
		n *= 2
	}
	return &index[V]{mask: n - 1, slots: make([]slot[V], n)}
}

// NewMap returns an empty map with room for n names; it grows beyond as
// needed.
func NewMap[V any](n int) *Map[V] {
	m := &Map[V]{seed: newSeed()}
	m.index.Store(newIndex[V](n))
	return m
}

// Cell returns the cell of a name, nil if the name never had a value. The
// value of the cell may be nil.
func (m *Map[V]) Cell(name string) *Cell[V] {
	h := m.seed.hash(name)
	x := m.index.Load()
	for i := h; ; i++ {
		s := &x.slots[i&x.mask]
		c := s.cell.Load()
		if c == nil {
			return nil
		}
		if s.hash.Load() == h && c.name == name {
			return c
		}
	}
}

// Lookup returns the value of a name, nil if it has none.
func (m *Map[V]) Lookup(name string) *V {
	if c := m.Cell(name); c != nil {
		return c.value.Load()
	}
	return nil
}

// Store gives a name a value, which must not be nil, and returns the value it
// replaces, nil if there was none.
func (m *Map[V]) Store(name string, value *V) (old *V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.Cell(name)
	if c == nil {
		c = m.add(name)
	}
	old = c.value.Swap(value)
	if old == nil {
		m.live++
	}
	return old
}

// Delete takes the value of a name away and returns it, nil if it had none.
func (m *Map[V]) Delete(name string) (old *V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.Cell(name)
	if c == nil {
		return nil
	}
	old = c.value.Swap(nil)
	if old != nil {
		m.live--
	}
	return old
}

// Len returns the number of names that have a value.
func (m *Map[V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live
}

// All yields each name and its value, in no order. Names stored or deleted
// meanwhile may be yielded or not.
func (m *Map[V]) All() iter.Seq2[string, *V] {
	return func(yield func(string, *V) bool) {
		x := m.index.Load()
		for i := range x.slots {
			c := x.slots[i].cell.Load()
			if c == nil {
				continue
			}
			if v := c.value.Load(); v != nil && !yield(c.name, v) {
				return
			}
		}
	}
}

// add inserts a cell for a name that has none, growing the index to stay at
// most half full. Cells without a value are left behind when it grows. Called
// with mu held.
func (m *Map[V]) add(name string) *Cell[V] {
	x := m.index.Load()
	if uint64(m.cells+1)*2 > uint64(len(x.slots)) {
		grown := newIndex[V](2 * (m.live + 1))
		m.cells = 0
		for i := range x.slots {
			if c := x.slots[i].cell.Load(); c != nil && c.value.Load() != nil {
				grown.insert(x.slots[i].hash.Load(), c)
				m.cells++
			}
		}
		m.index.Store(grown)
		x = grown
	}
	if len(m.spare) == 0 {
		m.spare = make([]Cell[V], together)
	}
	c := &m.spare[0]
	m.spare = m.spare[1:]
	c.name = name
	x.insert(m.seed.hash(name), c)
	m.cells++
	return c
}

func (x *index[V]) insert(h uint64, c *Cell[V]) {
	for i := h; ; i++ {
		s := &x.slots[i&x.mask]
		if s.cell.Load() == nil {
			s.hash.Store(h)
			s.cell.Store(c)
			return
		}
	}
}
