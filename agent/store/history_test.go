package store

import (
	"slices"
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
		name string
		got  []change
		want []change
	}{
		{"root", root.list, []change{{1, "a"}, {2, "b"}}},
		{"left", left.list, []change{{1, "a"}, {2, "b"}, {3, "left"}}},
		{"right", right.list, []change{{1, "a"}, {2, "b"}, {4, "right"}, {5, "more"}}},
		{"after", right.after(2), []change{{4, "right"}, {5, "more"}}},
		{"after all", right.after(5), nil},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
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
	if n := len(s.byIndex.list); n > 1100 || n < 2 {
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
