package store

import (
	"iter"
	"slices"
	"strings"
	"sync/atomic"
)

// tree is an immutable map from strings to values, ordered by key: a radix
// tree whose versions share the nodes that did not change. The zero value is
// empty. It may be copied, and read by any number of goroutines.
type tree[V any] struct {
	root *branch[V]
	size int
}

// branch stands for the keys that begin with the prefixes on the way to it. One
// without a leaf has at least two edges.
type branch[V any] struct {
	owner  uint64 // the edit that may change it in place
	prefix string // what it adds to the way
	leaf   *leaf[V]
	edges  []edge[V] // by label
}

type edge[V any] struct {
	label byte // first of the prefix of to
	to    *branch[V]
}

type leaf[V any] struct {
	key string
	val V
}

// find returns the place of the edge with a label, or where it would be.
func (n *branch[V]) find(label byte) (i int, ok bool) {
	lo, hi := 0, len(n.edges)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if n.edges[m].label < label {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < len(n.edges) && n.edges[lo].label == label
}

func (t tree[V]) len() int { return t.size }

func (t tree[V]) get(key string) (v V, ok bool) {
	n, rest := t.root, key
	for n != nil && strings.HasPrefix(rest, n.prefix) {
		rest = rest[len(n.prefix):]
		if rest == "" {
			if n.leaf == nil {
				return v, false
			}
			return n.leaf.val, true
		}
		i, ok := n.find(rest[0])
		if !ok {
			return v, false
		}
		n = n.edges[i].to
	}
	return v, false
}

// least returns the first key in order.
func (t tree[V]) least() (key string, ok bool) {
	n := t.root
	if n == nil {
		return "", false
	}
	for n.leaf == nil {
		n = n.edges[0].to
	}
	return n.leaf.key, true
}

// all yields everything in order of key.
func (t tree[V]) all() iter.Seq2[string, V] { return t.from("") }

// from yields the keys that are not less than a bound, in order.
func (t tree[V]) from(bound string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.root != nil {
			t.root.from(bound, yield)
		}
	}
}

// under yields the keys that begin with a prefix, in order.
func (t tree[V]) under(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for k, v := range t.from(prefix) {
			if !strings.HasPrefix(k, prefix) || !yield(k, v) {
				return
			}
		}
	}
}

// from yields what is under the node from a bound on, which is without the way
// to the node. It reports false if yield does.
func (n *branch[V]) from(bound string, yield func(string, V) bool) bool {
	c := common(n.prefix, bound)
	edges := n.edges
	switch {
	case c == len(bound): // all of it
		if n.leaf != nil && !yield(n.leaf.key, n.leaf.val) {
			return false
		}
		bound = ""
	case c == len(n.prefix):
		bound = bound[c:]
		i, ok := n.find(bound[0])
		edges = edges[i:]
		if ok {
			if !edges[0].to.from(bound, yield) {
				return false
			}
			edges = edges[1:]
		}
	case n.prefix[c] < bound[c]:
		return true
	default:
		return n.from("", yield)
	}
	for _, e := range edges {
		if !e.to.from("", yield) {
			return false
		}
	}
	return true
}

// common returns the length of the common prefix.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// edits counts the edits, so that each has a number of its own. 0 is none.
var edits atomic.Uint64

// edit is a tree that is changed: in place, as far as nodes are its own. It
// must not be copied, and is used by one goroutine.
type edit[V any] struct {
	tree[V]
	id uint64 // 0 until the first change
}

func (t tree[V]) edit() edit[V] { return edit[V]{tree: t} }

// commit returns the tree. What the edit changes afterwards does not show in it.
func (e *edit[V]) commit() tree[V] {
	e.id = 0
	return e.tree
}

// own makes the node at a place of the tree one that may be changed.
func (e *edit[V]) own(at **branch[V]) *branch[V] {
	n := *at
	if n.owner != e.id {
		n = &branch[V]{owner: e.id, prefix: n.prefix, leaf: n.leaf, edges: slices.Clone(n.edges)}
		*at = n
	}
	return n
}

// set sets the value of a key, and returns the one that it had.
func (e *edit[V]) set(key string, v V) (old V, replaced bool) {
	if e.id == 0 {
		e.id = edits.Add(1)
	}
	l := &leaf[V]{key: key, val: v}
	at, rest := &e.root, key
	for *at != nil {
		n := e.own(at)
		c := common(n.prefix, rest)
		rest = rest[c:]
		if c < len(n.prefix) {
			fork := &branch[V]{owner: e.id, prefix: n.prefix[:c]}
			n.prefix = n.prefix[c:]
			fork.edges = append(fork.edges, edge[V]{n.prefix[0], n})
			*at, n = fork, fork
		}
		if rest == "" {
			if n.leaf != nil {
				old, replaced = n.leaf.val, true
			} else {
				e.size++
			}
			n.leaf = l
			return old, replaced
		}
		i, ok := n.find(rest[0])
		if !ok {
			n.edges = slices.Insert(n.edges, i, edge[V]{label: rest[0]})
		}
		at = &n.edges[i].to
	}
	*at = &branch[V]{owner: e.id, prefix: rest, leaf: l}
	e.size++
	return old, false
}

// drop removes a key, and returns the value that it had.
func (e *edit[V]) drop(key string) (old V, ok bool) {
	if old, ok = e.get(key); !ok {
		return old, false
	}
	if e.id == 0 {
		e.id = edits.Add(1)
	}
	var up **branch[V] // of the parent
	var i int          // place among its edges
	at, rest := &e.root, key
	n := e.own(at)
	for rest = rest[len(n.prefix):]; rest != ""; rest = rest[len(n.prefix):] {
		up = at
		i, _ = n.find(rest[0])
		at = &n.edges[i].to
		n = e.own(at)
	}
	n.leaf = nil
	e.size--
	if len(n.edges) == 0 {
		if up == nil {
			e.root = nil
			return old, true
		}
		at, n = up, *up
		n.edges = slices.Delete(n.edges, i, i+1)
	}
	if n.leaf == nil && len(n.edges) == 1 {
		only := e.own(&n.edges[0].to)
		only.prefix = n.prefix + only.prefix
		*at = only
	}
	return old, true
}
