package store

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

func newHistory(changes ...change) history {
	h := history{}
	for _, c := range changes {
		h = h.add(c.index, c.key)
	}
	return h
}

// Two histories that came from one must not write into each other.
func TestHistoryBranches(t *testing.T) {
	root := newHistory(change{1, "a"}, change{2, "b"})
	left, right := root.add(3, "left"), root.add(4, "right")
	right = right.add(5, "more")
	for _, tt := range []struct {
		name  string
		h     history
		after uint64
		want  []change
	}{
		{"root", root, 0, []change{{1, "a"}, {2, "b"}}},
		{"left", left, 0, []change{{1, "a"}, {2, "b"}, {3, "left"}}},
		{"right", right, 0, []change{{1, "a"}, {2, "b"}, {4, "right"}, {5, "more"}}},
		{"after", right, 2, []change{{4, "right"}, {5, "more"}}},
		{"after all", right, 5, nil},
	} {
		if got := slices.Collect(tt.h.after(tt.after)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// The same where they need more chunks.
func TestHistoryBranchesOfChunks(t *testing.T) {
	grow := func(h history, from, to uint64, key record.Key) history {
		for i := from; i <= to; i++ {
			h = h.add(i, key)
		}
		return h
	}
	for chunks := uint64(1); chunks < 10; chunks++ {
		half, whole := chunks*chunkSize, (chunks+2)*chunkSize+1
		root := grow(history{}, 1, half, "root")
		left, right := grow(root, half+1, whole, "left"), grow(root, half+1, whole, "right")
		for key, h := range map[record.Key]history{"left": left, "right": right} {
			i := uint64(0)
			for c := range h.after(0) {
				if i++; c.index != i || i > half && c.key != key {
					t.Fatalf("%d chunks: change %d of %s is %d of %s", chunks, i, key, c.index, c.key)
				}
			}
			if i != whole {
				t.Errorf("%d chunks: %d changes of %s, want %d", chunks, i, key, whole)
			}
		}
	}
}

// TestHistory compares histories of many changes, some branching off earlier
// ones, with the list of live keys. It sees that they stay small, and that
// little is looked at for one change.
func TestHistory(t *testing.T) {
	type version struct {
		h    history
		last map[record.Key]uint64
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	v := version{last: map[record.Key]uint64{}}
	versions := []version{{last: map[record.Key]uint64{}}}
	for i := uint64(1); i <= 40_000; i++ {
		key := record.Key(strconv.Itoa(int(i))) // each once at first
		if i > 5000 {
			key = record.Key(strconv.Itoa(1 + rnd.IntN(5000)))
		}
		v.h = v.h.add(i, key)
		v.last[key] = i
		looked := 0
		v.h = v.h.thin(len(v.last), func(c change) bool { looked++; return v.last[c.key] == c.index })
		if looked > chunkSize+thinRate {
			t.Fatalf("change %d: looked at %d", i, looked)
		}
		if limit := 3*len(v.last) + 2*chunkSize; v.h.n > limit {
			t.Fatalf("change %d: %d changes are kept of %d keys", i, v.h.n, len(v.last))
		}
		if rnd.IntN(2000) == 0 {
			versions = append(versions, version{v.h, maps.Clone(v.last)})
		}
		if rnd.IntN(5000) == 0 {
			v = versions[rnd.IntN(len(versions))]
			v.last = maps.Clone(v.last)
		}
	}
	for _, v := range append(versions, v) {
		var got, want []change
		n := 0
		for c := range v.h.after(0) {
			if n++; v.last[c.key] == c.index {
				got = append(got, c)
			}
		}
		for key, index := range v.last {
			want = append(want, change{index, key})
		}
		slices.SortFunc(want, func(a, b change) int { return cmp.Compare(a.index, b.index) })
		if !slices.Equal(got, want) || n != v.h.n {
			t.Fatalf("%d live of %d changes, want %d of %d", len(got), n, len(want), v.h.n)
		}
		for _, after := range []uint64{0, 1, 4999, 20_000, 40_000} {
			i := sort.Search(len(want), func(i int) bool { return want[i].index > after })
			live := slices.DeleteFunc(slices.Collect(v.h.after(after)), func(c change) bool { return v.last[c.key] != c.index })
			if !slices.Equal(live, want[i:]) {
				t.Fatalf("after %d: %d live changes, want %d", after, len(live), len(want[i:]))
			}
		}
	}
}

func TestHistoryStaysSmall(t *testing.T) {
	m := newMachine()
	for i := range 5000 {
		in := instance("a", "10.0.0.1")
		in.ID, in.Port = "i1", uint16(1+i%2)
		m.do(reg(in))
	}
	s := m.f.current.Load()
	if n := s.byIndex.n; n > 3*chunkSize || n < 2 {
		t.Errorf("%d changes are kept of %d entries", n, s.entries.len())
	}
	es, ok := m.f.state().Since(record.Position{Generation: s.pos.Generation, Index: s.pos.Index - 1})
	if !ok || len(es) != 1 {
		t.Errorf("Since the last but one: %v, %t; want the instance", es, ok)
	}
}

func TestRecentEntries(t *testing.T) {
	var r recent
	logs := func(from, to uint64, size int) (out []raft.Log) {
		for i := from; i <= to; i++ {
			out = append(out, raft.Log{Index: i, Term: from, Data: make([]byte, size)})
		}
		return out
	}
	holds := func(what string, index, term uint64, want bool) {
		t.Helper()
		var l raft.Log
		if got := r.get(index, &l); got != want || got && (l.Index != index || l.Term != term) {
			t.Errorf("%s: entry %d is held: %t as %d of term %d, want %t of term %d", what, index, got, l.Index, l.Term, want, term)
		}
	}
	r.add(logs(10, 10+recentEntries, 1))
	holds("full", 10, 10, false)
	holds("full", 11, 10, true)
	holds("full", 10+recentEntries, 10, true)
	holds("full", 11+recentEntries, 10, false)
	r.add(logs(20, 22, 1))
	holds("written over", 19, 10, false)
	holds("written over", 20, 20, true)
	holds("written over", 23, 10, false)
	r.add(logs(23, 23+16, recentBytes/16))
	holds("many bytes", 23, 23, false)
	holds("many bytes", 39, 23, true)
	r.forget()
	holds("forgotten", 39, 23, false)
	if r.bytes != 0 {
		t.Errorf("%d bytes are counted of nothing", r.bytes)
	}
}
