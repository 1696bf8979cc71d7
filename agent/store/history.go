package store

import (
	"cmp"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/fluid-sd/fluid/plugin/record"
)

// history lists the keys of live entries in the order of their last change, so
// that what changed after an index is found without looking at the rest. It
// also holds keys that have changed again since: a reader drops those whose
// entry has another index, and thin removes them.
//
// It is a value. Values that came from one another share an array; only one of
// them can be extended in place, any other is copied.
type history struct {
	list []change
	end  *atomic.Int64 // how much of the array is taken
}

type change struct {
	index uint64
	key   record.Key
}

// add returns the history with a change that is not before the last one.
func (h history) add(index uint64, key record.Key) history {
	n := len(h.list)
	if n == cap(h.list) || !h.end.CompareAndSwap(int64(n), int64(n+1)) {
		list := make([]change, n, max(64, 2*n))
		copy(list, h.list)
		h = history{list: list, end: new(atomic.Int64)}
		h.end.Store(int64(n + 1))
	}
	h.list = append(h.list, change{index, key})
	return h
}

// after returns the changes after an index.
func (h history) after(index uint64) []change {
	i := sort.Search(len(h.list), func(i int) bool { return h.list[i].index > index })
	return h.list[i:]
}

// thin returns the history without the changes that are not live. It takes
// time for all that is in it, so it is done when most of it is not live.
func (h history) thin(live int, keep func(change) bool) history {
	if len(h.list) < 2*live+1024 {
		return h
	}
	list := make([]change, 0, 2*live+1024)
	for _, c := range h.list {
		if keep(c) {
			list = append(list, c)
		}
	}
	end := new(atomic.Int64)
	end.Store(int64(len(list)))
	return history{list: list, end: end}
}

// sorted returns a history of changes in any order.
func sorted(list []change) history {
	slices.SortFunc(list, func(a, b change) int {
		if a.index != b.index {
			return cmp.Compare(a.index, b.index)
		}
		return cmp.Compare(a.key, b.key)
	})
	end := new(atomic.Int64)
	end.Store(int64(len(list)))
	return history{list: list, end: end}
}
