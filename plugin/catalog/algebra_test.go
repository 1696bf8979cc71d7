package catalog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/record"
)

// history of one origin as its writer made it; states of other members are
// built from subsets of its deltas.
type writer struct {
	c      *Catalog
	ow     *Owner
	deltas []Delta
}

func newWriter(t interface{ Fatal(...any) }, id byte, epoch uint64, items []Item) *writer {
	w := &writer{c: New()}
	ow, _, err := w.c.Own(int64(epoch), record.OriginID{id}, epoch, epoch, items)
	if err != nil {
		t.Fatal(err)
	}
	w.ow = ow
	return w
}

func (w *writer) put(t interface{ Fatal(...any) }, now int64, id string, weight int) {
	in := &record.Instance{Service: "web", ID: id, Weight: uint16(weight), Addrs: schedAddr}
	it, changed, err := w.ow.Register(now, in)
	if err != nil {
		t.Fatal(err)
	}
	if changed {
		d, _ := w.ow.Commit(now, it)
		w.deltas = append(w.deltas, d)
	}
}

func (w *writer) remove(now int64, id string) {
	if it, err := w.ow.Withdraw(now, record.InstanceKey("web", id)); err == nil {
		d, _ := w.ow.Commit(now, it)
		w.deltas = append(w.deltas, d)
	}
}

// everything returns deltas that carry all that was written: each change on
// its own, increments over several, and a reset.
func (w *writer) everything() []Delta {
	out := slices.Clone(w.deltas)
	h := w.ow.Head()
	for from := range h.Watermark {
		out = append(out, w.c.Pull(Want{Origin: h.Origin, Epoch: h.Epoch, Nonce: h.Nonce, From: from}, 1<<20)...)
	}
	reset := w.c.Pull(Want{Origin: h.Origin}, 1<<20)
	for _, d := range reset {
		d.ResetTo, d.Floor = h.Watermark, 0
		out = append(out, d)
	}
	return out
}

func merged(groups ...[]Delta) *Catalog {
	c := New()
	for _, g := range groups {
		for i := range g {
			if _, err := c.Merge(1, &g[i]); err != nil {
				panic(err)
			}
		}
	}
	return c
}

// full is the whole state of a catalog, staged epochs and gaps included.
func full(c *Catalog) string {
	s := content(c)
	for _, id := range c.OriginIDs() {
		o := c.origins[id]
		for _, h := range o.histories() {
			s += fmt.Sprintf("%v %d W=%d %v floor=%d shown=%v", id, h.epoch, h.watermark, h.spans, h.floor, h.shown)
			for _, cl := range h.log {
				s += fmt.Sprintf(" %s:%d:%v", cl.key(), cl.seq, cl.dead)
			}
			s += "\n"
		}
	}
	return s
}

func TestMergeAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pool []Delta
		for origin := byte(1); origin <= 2; origin++ {
			var items []Item
			for epoch := uint64(1); epoch <= 2; epoch++ {
				w := newWriter(t, origin, epoch, items)
				for range rapid.IntRange(1, 5).Draw(t, "writes") {
					id := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id")
					if rapid.Bool().Draw(t, "remove") {
						w.remove(int64(epoch), id)
					} else {
						w.put(t, int64(epoch), id, rapid.IntRange(0, 9).Draw(t, "weight"))
					}
				}
				pool = append(pool, w.everything()...)
				for _, cl := range w.ow.o.cur.log {
					if !cl.dead {
						items = append(items, cl.item())
					}
				}
				items = items[:min(len(items), 1)]
			}
		}
		subset := func(name string) []Delta {
			var out []Delta
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(pool)-1), 0, 6).Draw(t, name) {
				out = append(out, pool[i])
			}
			return out
		}
		a, b, c := subset("a"), subset("b"), subset("c")
		if x, y := full(merged(a, b)), full(merged(b, a)); x != y {
			t.Fatalf("not commutative:\n%s\n%s", x, y)
		}
		if x, y := full(merged(slices.Concat(a, b), c)), full(merged(a, slices.Concat(c, b))); x != y {
			t.Fatalf("not associative:\n%s\n%s", x, y)
		}
		if x, y := full(merged(a, b)), full(merged(a, b, a, b)); x != y {
			t.Fatalf("not idempotent:\n%s\n%s", x, y)
		}
	})
}

// TestMergeExhaustive merges, in every order, every set of up to three deltas
// of a small history that has all cases: an overwrite, a removal, a
// re-registration, a range, a reset, and a newer epoch.
func TestMergeExhaustive(t *testing.T) {
	w := newWriter(t, 1, 1, nil)
	w.put(t, 1, "a", 1)
	w.put(t, 1, "b", 2)
	w.remove(1, "a")
	w.put(t, 1, "a", 3)
	pool := w.everything()
	held, _ := w.ow.Instance("web", "b")
	w2 := newWriter(t, 1, 2, []Item{held})
	w2.put(t, 2, "a", 4)
	w2.remove(2, "b")
	pool = append(pool, w2.everything()...)

	orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}, {0, 0, 1, 1, 2, 0}}
	n := 0
	for i := range pool {
		for j := range pool {
			for k := range pool {
				set := []Delta{pool[i], pool[j], pool[k]}
				want := ""
				for _, order := range orders {
					c := New()
					for _, x := range order {
						if _, err := c.Merge(1, &set[x]); err != nil {
							t.Fatal(err)
						}
					}
					switch got := full(c); {
					case want == "":
						want = got
					case got != want:
						t.Fatalf("deltas %d %d %d in order %v:\n%s\nwant\n%s", i, j, k, order, got, want)
					}
					n++
				}
			}
		}
	}
	t.Logf("%d merges of %d deltas agree", n, len(pool))
}

// TestWinnerIsAssociative picks the winner of three claims in every grouping.
// By the total order the result never depends on it.
func TestWinnerIsAssociative(t *testing.T) {
	if bad := groupings(0); bad != "" {
		t.Error(bad)
	}
}

// TestVectorClockFirstIsWrong shows why the vector clock must not pick: with
// clocks that run apart, three claims have three winners.
func TestVectorClockFirstIsWrong(t *testing.T) {
	if bad := groupings(vectorClockFirst); bad == "" {
		t.Error("no grouping differs although the vector clock picks first")
	}
}

// groupings compares (x⊔y)⊔z with x⊔(y⊔z) for random claims, whose writers
// may have slow clocks, and returns a description of the first difference.
func groupings(m mutation) string {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		c := New()
		c.mutation = m
		var claims []*claim
		for i := range byte(3) {
			id := record.OriginID{i + 1}
			h := &history{id: id, epoch: 1}
			c.origins[id] = &origin{id: id, cur: h}
			cl := &claim{from: h, hlc: HLC(rng.IntN(4) + 1), seq: 1, value: string([]byte{1<<3 | 2, 1, 'a'})}
			var v vector
			for j, seen := range claims { // what its writer had seen
				if rng.IntN(2) == 0 {
					v = v.with(tick{record.OriginID{byte(j) + 1}, seen.hlc})
				}
			}
			cl.extra = v.encode()
			claims = append(claims, cl)
		}
		best := func(a, b *claim) *claim {
			if c.beats(a, b) {
				return a
			}
			return b
		}
		x, y, z := claims[0], claims[1], claims[2]
		left, right := best(best(x, y), z), best(x, best(y, z))
		if other := best(best(x, z), y); left != right || left != other {
			return fmt.Sprintf("claims at %d, %d, %d: winners %v, %v, %v", x.hlc, y.hlc, z.hlc, left.from.id[0], right.from.id[0], other.from.id[0])
		}
	}
	return ""
}
