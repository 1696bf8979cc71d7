package store

import (
	"strings"
	"testing"
)

// TestProposals: what makes an entry, and when.
func TestProposals(t *testing.T) {
	q := newProposals()
	add := func(n, size int) {
		for range n {
			if !q.add(&proposal{raw: strings.Repeat("x", size)}) {
				t.Fatal("refused")
			}
		}
	}
	next := func(what string, want int) {
		t.Helper()
		if got := len(q.next()); got != want {
			t.Errorf("%s: an entry of %d commands, want %d", what, got, want)
		}
	}
	next("nothing waits", 0)
	add(1, 100)
	next("a lone writer", 1)
	add(manyCommands-1, 100)
	next("an entry is on its way", 0)
	add(1, 100)
	next("many wait", manyCommands)
	add(2*manyCommands, 100)
	next("two entries are on their way", 0)
	q.landed()
	next("many wait beside one", 2*manyCommands)
	q.landed()
	q.landed()
	add(maxCoalesced+7, 1)
	next("too many", maxCoalesced)
	q.landed()
	next("the rest of them", 7)
	add(4, maxCoalescedBytes/2)
	next("many bytes beside one", 2)
	q.landed()
	next("the rest of the bytes", 2)
	q.landed()
	q.landed()
	add(1, 2*maxCoalescedBytes)
	next("one that is larger", 1)
	add(3, 1)
	if got := len(q.end()); got != 3 {
		t.Errorf("%d wait at the end, want 3", got)
	}
	if q.add(&proposal{}) {
		t.Error("taken after the end")
	}
}
