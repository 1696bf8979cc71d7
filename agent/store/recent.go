package store

import (
	"sync"

	"github.com/hashicorp/raft"
)

// Bounds of what is kept of the log in memory.
const (
	recentEntries = 1024
	recentBytes   = 8 << 20
)

// recent holds the newest entries of the log. Raft reads each entry back from
// the log store several times: once for every other server, and on followers
// once more to apply it.
type recent struct {
	mu          sync.Mutex // guards what follows
	ring        [recentEntries]raft.Log
	first, next uint64 // indexes: those from first to before next are held
	bytes       int
}

// add notes entries that are on disk. They are in order.
func (r *recent) add(logs []raft.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range logs {
		if l.Index != r.next {
			r.drop()
			r.first, r.next = l.Index, l.Index
		}
		for r.first < r.next && (r.next-r.first >= recentEntries || r.bytes+len(l.Data) > recentBytes) {
			old := &r.ring[r.first%recentEntries]
			r.bytes -= len(old.Data)
			*old = raft.Log{}
			r.first++
		}
		r.ring[l.Index%recentEntries] = l
		r.bytes += len(l.Data)
		r.next++
	}
}

// get copies the entry at index to e and reports whether it is held.
func (r *recent) get(index uint64, e *raft.Log) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index < r.first || index >= r.next {
		return false
	}
	*e = r.ring[index%recentEntries]
	return true
}

// forget drops all: what is on disk has changed, or is not known.
func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
}

func (r *recent) drop() {
	clear(r.ring[:])
	r.first, r.next, r.bytes = 0, 0, 0
}
