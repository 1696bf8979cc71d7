package store

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/fluid-sd/fluid/plugin/record"
)

// history lists the keys of live entries in the order of their last change, so
// that what changed after an index is found without looking at the rest. It
// also holds keys that have changed again since: a reader drops those whose
// entry has another index, and thin removes them, some at a time.
//
// It is a value. Values that came from one another share their chunks; only
// one of them can extend the last chunk in place, any other copies it.
type history struct {
	full [][]change    // chunks before the last one; replaced, never changed
	last []change      // at most chunkSize
	end  *atomic.Int64 // how much of the array of last is taken
	n    int           // changes in all chunks
	owed int           // changes that thin is to look at
	hand int           // the chunk that it looks at next
}

type change struct {
	index uint64
	key   record.Key
}

const (
	chunkSize = 1024
	// thinRate is how many changes thin looks at for each that is added, while
	// there are too many. At least half are then not live.
	thinRate = 3
)

// add returns the history with a change that is not before the last one.
func (h history) add(index uint64, key record.Key) history {
	if len(h.last) == chunkSize {
		h.full = append(slices.Clip(h.full), h.last)
		h.last = nil
	}
	n := len(h.last)
	if n == cap(h.last) || !h.end.CompareAndSwap(int64(n), int64(n+1)) {
		list := make([]change, n, min(max(64, 2*n), chunkSize))
		copy(list, h.last)
		h.last, h.end = list, new(atomic.Int64)
		h.end.Store(int64(n + 1))
	}
	h.last = append(h.last, change{index, key})
	h.n++
	h.owed += thinRate
	return h
}

// after yields the changes after an index, in order.
func (h history) after(index uint64) iter.Seq[change] {
	return func(yield func(change) bool) {
		i := sort.Search(len(h.full), func(i int) bool { return h.full[i][len(h.full[i])-1].index > index })
		for ; i <= len(h.full); i++ {
			chunk := h.last
			if i < len(h.full) {
				chunk = h.full[i]
			}
			from := sort.Search(len(chunk), func(i int) bool { return chunk[i].index > index })
			for _, c := range chunk[from:] {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// thin returns the history without some of the changes that are not live, once
// most are not. It looks at a few chunks at a time, because nothing is applied
// meanwhile.
func (h history) thin(live int, keep func(change) bool) history {
	if h.n < 2*live+chunkSize {
		h.owed = 0
		return h
	}
	owned := false
	for len(h.full) > 0 {
		if h.hand >= len(h.full) {
			h.hand = 0
		}
		chunk := h.full[h.hand]
		if h.owed < len(chunk) {
			break
		}
		h.owed -= len(chunk)
		if !owned {
			h.full, owned = slices.Clone(h.full), true
		}
		h.n -= h.sweep(keep)
	}
	return h
}

// sweep removes what is not live from the chunk at the hand, moves on, and
// returns how much that was. It changes full in place, but none of its chunks.
func (h *history) sweep(keep func(change) bool) (removed int) {
	chunk := h.full[h.hand]
	kept := make([]change, 0, len(chunk))
	for _, c := range chunk {
		if keep(c) {
			kept = append(kept, c)
		}
	}
	switch before := h.hand - 1; {
	case len(kept) == 0:
		h.full = slices.Delete(h.full, h.hand, h.hand+1)
	case before >= 0 && len(h.full[before])+len(kept) <= chunkSize:
		h.full[before] = slices.Concat(h.full[before], kept)
		h.full = slices.Delete(h.full, h.hand, h.hand+1)
	default:
		h.full[h.hand] = slices.Clip(kept)
		h.hand++
	}
	return len(chunk) - len(kept)
}

// sorted returns a history of changes in any order.
func sorted(list []change) history {
	slices.SortFunc(list, func(a, b change) int {
		if a.index != b.index {
			return cmp.Compare(a.index, b.index)
		}
		return cmp.Compare(a.key, b.key)
	})
	return history{full: slices.Collect(slices.Chunk(list, chunkSize)), n: len(list)}
}
