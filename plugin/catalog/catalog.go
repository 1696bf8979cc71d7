package catalog

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

var (
	// ErrGap is returned for a delta that does not start where the catalog is.
	// The catalog is unchanged; the owner asks again from Position.
	ErrGap = errors.New("delta does not follow the position")
	// ErrBehind is returned for a state that is older than the catalog's. The
	// catalog is unchanged.
	ErrBehind = errors.New("state is behind the position")
)

// Catalog is what one member knows. The zero Catalog is not usable; see New.
type Catalog struct {
	slot    *slot
	origins map[record.OriginID]*origin
	cells   map[string]*cell             // claims by service
	named   map[string][]record.OriginID // node name → origins whose header says so
	members map[string]memberState
	guards  map[string]*guard
	own     record.OriginID // the origin this member writes, if any
	limits  Limits
	bytes   int   // estimated memory of all claims, staged ones included
	now     int64 // latest time heard, in milliseconds

	collected int64  // when tombstones were last forgotten
	conflicts uint64 // versions taken in that were concurrent with another origin's

	mutation mutation
}

// Limits bounds what a catalog takes from the mesh, whoever sends it.
type Limits struct {
	Origins   int           // origins known at once
	Bytes     int           // estimated memory of all origins together
	DeadAfter time.Duration // from the death of an origin's last member to its instances leaving the view
}

// DefaultLimits are the limits of New.
func DefaultLimits() Limits {
	return Limits{Origins: 16_384, Bytes: 1 << 30, DeadAfter: 30 * time.Second}
}

// New returns an empty catalog at the zero position.
func New() *Catalog { return NewWithLimits(DefaultLimits()) }

// NewWithLimits returns an empty catalog at the zero position.
func NewWithLimits(l Limits) *Catalog {
	return &Catalog{
		slot:    newSlot(record.Position{}),
		origins: map[record.OriginID]*origin{},
		cells:   map[string]*cell{},
		named:   map[string][]record.OriginID{},
		members: map[string]memberState{},
		guards:  map[string]*guard{},
		limits:  l,
	}
}

// Position returns the position of the committed slot; zero before the first
// Replace or Apply.
func (c *Catalog) Position() record.Position { return c.slot.pos }

// Hash returns the content hash of the committed slot: the sum of EntryHash
// over its live entries.
func (c *Catalog) Hash() uint64 { return c.slot.hash }

// Len returns the number of live committed entries.
func (c *Catalog) Len() int { return c.slot.live }

// Quarantined returns the number of committed entries of a known kind that did
// not decode. They count in Hash and Entries, and are not viewed.
func (c *Catalog) Quarantined() int { return len(c.slot.bad) }

// Entries yields every live committed entry, quarantined ones included, in no
// particular order. The catalog must not be changed meanwhile.
func (c *Catalog) Entries() iter.Seq[record.Entry] { return c.slot.entries() }

// Since returns every change after pos: live entries and removals with a
// greater index, ordered by index. It reports false if the catalog cannot
// tell, because pos is of another generation or removals up to it were
// forgotten; only Entries can then bring a reader up to date.
func (c *Catalog) Since(pos record.Position) ([]record.Entry, bool) {
	s := c.slot
	if pos.Generation != s.pos.Generation || pos.Index < s.floor {
		return nil, false
	}
	var out []record.Entry
	for e := range s.entries() {
		if e.Index > pos.Index {
			out = append(out, e)
		}
	}
	for _, g := range s.graves {
		if _, live := s.get(g.Key); g.Index > pos.Index && !live {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, compareEntries)
	return out, true
}

// Changes says whose view may differ from before a call. Names may be listed
// that did not change, never the other way round.
type Changes struct {
	All      bool     // anything may have changed; the lists are not complete
	Services []string // sorted
	Nodes    []string // sorted
}

// Empty reports whether nothing changed.
func (ch Changes) Empty() bool { return !ch.All && len(ch.Services) == 0 && len(ch.Nodes) == 0 }

// with returns the union of two sets of changes.
func (ch Changes) with(other Changes) Changes {
	join := func(a, b []string) []string {
		out := slices.Concat(a, b)
		slices.Sort(out)
		return slices.Compact(out)
	}
	return Changes{All: ch.All || other.All, Services: join(ch.Services, other.Services), Nodes: join(ch.Nodes, other.Nodes)}
}

// touched collects what a step changes.
type touched struct {
	services map[string]bool
	nodes    map[string]bool
	headers  map[record.OriginID]bool // origins whose header or epoch changed
	reaped   bool                     // a reap fence came or went
}

func newTouched() *touched { return &touched{} }

func (t *touched) addService(name string) { t.services = with(t.services, name) }
func (t *touched) addNode(name string)    { t.nodes = with(t.nodes, name) }

func (t *touched) addHeader(id record.OriginID) { t.headers = with(t.headers, id) }

// with adds to a set that is made when it is needed: most steps touch little.
func with[K comparable](set map[K]bool, k K) map[K]bool {
	if set == nil {
		set = map[K]bool{}
	}
	set[k] = true
	return set
}

// sorted returns the elements of a set; most sets are empty or hold one.
func sorted(set map[string]bool) []string {
	if len(set) == 0 {
		return nil
	}
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (t *touched) service(sv *service, index uint64) {
	sv.index = max(sv.index, index)
	t.addService(sv.name)
}

func (t *touched) changes() Changes {
	return Changes{Services: sorted(t.services), Nodes: sorted(t.nodes)}
}

// Stage is a full committed state that was read but does not count yet.
type Stage struct{ slot *slot }

// NewStage reads a full state at pos. Records that do not decode are
// quarantined.
func NewStage(pos record.Position, entries iter.Seq[record.Entry]) *Stage {
	st := &Stage{slot: newSlot(pos)}
	st.Add(entries)
	return st
}

// Add reads more of the state.
func (st *Stage) Add(entries iter.Seq[record.Entry]) {
	t := newTouched()
	for e := range entries {
		if !e.Deleted {
			st.slot.set(e, t)
		}
		clear(t.services)
	}
}

// Position returns the position of the state.
func (st *Stage) Position() record.Position { return st.slot.pos }

// Hash returns the content hash that the catalog will have after Swap.
func (st *Stage) Hash() uint64 { return st.slot.hash }

// Swap makes a staged state the committed slot, in one step. It returns
// ErrBehind if the stage is older than the catalog.
func (c *Catalog) Swap(st *Stage) (Changes, error) {
	if st.slot.pos.Before(c.slot.pos) {
		return Changes{}, fmt.Errorf("catalog: replace %v with %v: %w", c.slot.pos, st.slot.pos, ErrBehind)
	}
	old := c.slot
	if old.pos.Generation == st.slot.pos.Generation {
		// A removal leaves no trace in a full state; indexes still never go back.
		for name, sv := range st.slot.services {
			if o := old.services[name]; o != nil {
				sv.index = max(sv.index, o.index)
			}
		}
	}
	c.slot = st.slot
	t := newTouched()
	t.reaped = true
	for name := range c.guards {
		t.addService(name)
	}
	c.settle(c.now, t)
	return Changes{All: true}, nil
}

// Replace makes entries the whole committed slot at pos. They are read aside
// and swapped in at the end; a record that does not decode is quarantined, the
// rest is used. It returns ErrBehind if pos is before Position.
func (c *Catalog) Replace(pos record.Position, entries iter.Seq[record.Entry]) (Changes, error) {
	if pos.Before(c.slot.pos) {
		return Changes{}, fmt.Errorf("catalog: replace %v with %v: %w", c.slot.pos, pos, ErrBehind)
	}
	return c.Swap(NewStage(pos, entries))
}

// Apply advances the committed slot from prev to pos by the entries that
// changed between. It returns ErrGap unless prev is Position and both are of
// one generation, and ErrBehind if pos is before prev. Where one key occurs
// more than once, the greatest index counts.
func (c *Catalog) Apply(prev, pos record.Position, entries []record.Entry) (Changes, error) {
	switch {
	case pos.Before(c.slot.pos):
		return Changes{}, fmt.Errorf("catalog: apply %v to %v: %w", pos, c.slot.pos, ErrBehind)
	case prev != c.slot.pos, prev.Generation != pos.Generation:
		return Changes{}, fmt.Errorf("catalog: apply %v..%v at %v: %w", prev, pos, c.slot.pos, ErrGap)
	}
	t := newTouched()
	for _, e := range entries {
		if old, ok := c.slot.get(e.Key); ok && old.Index > e.Index {
			continue
		}
		c.slot.set(e, t)
	}
	c.slot.pos = pos
	c.settle(c.now, t)
	return t.changes(), nil
}

// HashAfter returns the content hash that Apply of the entries would lead to,
// without applying them, so that a signed head can be compared first.
func (c *Catalog) HashAfter(entries []record.Entry) uint64 {
	h := c.slot.hash
	last := make(map[record.Key]record.Entry, len(entries))
	for _, e := range entries {
		old, ok := last[e.Key]
		if !ok {
			old, ok = c.slot.get(e.Key)
		}
		if ok && old.Index > e.Index {
			continue
		}
		if ok {
			h -= EntryHash(old)
		}
		h += EntryHash(e)
		last[e.Key] = e
	}
	return h
}

func compareEntries(a, b record.Entry) int {
	switch {
	case a.Index != b.Index && a.Index < b.Index:
		return -1
	case a.Index != b.Index:
		return 1
	case a.Key < b.Key:
		return -1
	case a.Key > b.Key:
		return 1
	}
	return 0
}
