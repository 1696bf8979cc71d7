package store

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestTree compares trees with maps, and sees that no edit changes a tree that
// it came from.
func TestTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringOfN(rapid.SampledFrom([]rune("ab/\x00")), 0, 6, -1)
		type version struct {
			tree tree[int]
			want map[string]int
		}
		versions := []version{{want: map[string]int{}}}
		for range rapid.IntRange(1, 5).Draw(t, "edits") {
			from := rapid.SampledFrom(versions).Draw(t, "from")
			e, want := from.tree.edit(), maps.Clone(from.want)
			for range rapid.IntRange(0, 30).Draw(t, "changes") {
				k, v := key.Draw(t, "key"), rapid.Int().Draw(t, "value")
				was, had := want[k]
				var old int
				var ok bool
				switch rapid.IntRange(0, 4).Draw(t, "what") {
				case 0:
					old, ok = e.drop(k)
					delete(want, k)
				case 1:
					versions = append(versions, version{e.commit(), maps.Clone(want)})
					continue
				default:
					old, ok = e.set(k, v)
					want[k] = v
				}
				if old != was || ok != had {
					t.Fatalf("%q was %d, %t; want %d, %t", k, old, ok, was, had)
				}
			}
			versions = append(versions, version{e.commit(), want})
		}
		bound := key.Draw(t, "bound")
		for _, v := range versions {
			checkTree(t, v.tree, v.want, bound)
		}
	})
}

func checkTree(t *rapid.T, got tree[int], want map[string]int, bound string) {
	if got.len() != len(want) {
		t.Fatalf("%d keys, want %d", got.len(), len(want))
	}
	keys := slices.Sorted(maps.Keys(want))
	same := func(what string, seq iter.Seq2[string, int], keep func(string) bool) {
		var have, should []string
		for k, v := range seq {
			have = append(have, k)
			if v != want[k] {
				t.Fatalf("%s: %q is %d, want %d", what, k, v, want[k])
			}
		}
		for _, k := range keys {
			if keep(k) {
				should = append(should, k)
			}
		}
		if !slices.Equal(have, should) {
			t.Fatalf("%s %q: %q, want %q", what, bound, have, should)
		}
	}
	same("all", got.all(), func(string) bool { return true })
	same("from", got.from(bound), func(k string) bool { return k >= bound })
	same("under", got.under(bound), func(k string) bool { return strings.HasPrefix(k, bound) })
	for _, k := range append(keys, bound) {
		v, ok := got.get(k)
		if w, has := want[k]; v != w || ok != has {
			t.Fatalf("get %q: %d, %t; want %d, %t", k, v, ok, w, has)
		}
	}
	k, ok := got.least()
	if ok != (len(keys) > 0) || ok && k != keys[0] {
		t.Fatalf("least: %q, %t; want the first of %q", k, ok, keys)
	}
	if got.root != nil {
		checkNode(t, got.root, true)
	}
}

// checkNode sees that no node is there for nothing.
func checkNode(t *rapid.T, n *branch[int], root bool) {
	if n.leaf == nil && len(n.edges) < 2 || !root && n.prefix == "" {
		t.Fatalf("node %q with %d edges, leaf %v", n.prefix, len(n.edges), n.leaf)
	}
	for _, e := range n.edges {
		if e.label != e.to.prefix[0] {
			t.Fatalf("edge %q to %q", e.label, e.to.prefix)
		}
		checkNode(t, e.to, false)
	}
}
