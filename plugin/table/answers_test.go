package table_test

import (
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/table"
)

type answer struct {
	key table.Key
	n   int
}

// TestAnswersKeepTheBound puts and gets at random: an answer that is found is
// the last one put under its key, and the bound holds at every moment.
func TestAnswersKeepTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(0, 40).Draw(t, "capacity")
		s, last, n := table.NewAnswers[answer](capacity, nil), map[table.Key]answer{}, 0
		keys := rapid.Custom(func(t *rapid.T) table.Key {
			return table.Key{Name: fmt.Sprintf("n%d", rapid.IntRange(0, 80).Draw(t, "n")), Tag: rapid.Uint64Range(0, 2).Draw(t, "tag")}
		})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				n++
				a := answer{k, n}
				s.Put(k, a)
				last[k] = a
				if got := s.Get(k); capacity > 0 && (got == nil || *got != a) {
					t.Fatalf("Get(%v) right after Put = %+v, want %+v", k, got, a)
				}
			},
			"get": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				if got := s.Get(k); got != nil && *got != last[k] {
					t.Fatalf("Get(%v) = %+v, want %+v or nil", k, got, last[k])
				}
			},
			"shrink": func(t *rapid.T) {
				capacity = rapid.IntRange(0, capacity).Draw(t, "capacity")
				s.SetCapacity(capacity)
			},
			"": func(t *rapid.T) {
				if got := s.Stats().Entries; got > capacity {
					t.Fatalf("%d entries, want at most %d", got, capacity)
				}
			},
		})
	})
}

// TestAnswersSecondChance fills a store and keeps asking for one answer: it
// survives a stream of answers that nobody asks for again.
func TestAnswersSecondChance(t *testing.T) {
	const capacity = 1000
	s := table.NewAnswers[answer](capacity, nil)
	hot := table.Key{Name: "hot"}
	s.Put(hot, answer{})
	for i := range 20 * capacity {
		if s.Get(hot) == nil {
			t.Fatalf("the answer in use was evicted after %d others", i)
		}
		s.Put(table.Key{Name: fmt.Sprint(i)}, answer{})
	}
	if st := s.Stats(); st.Evictions == 0 || st.Entries > capacity || st.Entries < capacity/2 {
		t.Errorf("stats %+v: want evictions, and between %d and %d entries", st, capacity/2, capacity)
	}
}

// TestAnswersHoldTheirCapacity checks that few answers are lost to full sets.
func TestAnswersHoldTheirCapacity(t *testing.T) {
	const capacity = 50000
	s := table.NewAnswers[answer](capacity, nil)
	for i := range capacity {
		s.Put(table.Key{Name: fmt.Sprint(i)}, answer{})
	}
	found := 0
	for i := range capacity {
		if s.Get(table.Key{Name: fmt.Sprint(i)}) != nil {
			found++
		}
	}
	if found < capacity*95/100 {
		t.Errorf("%d of %d answers kept, want 95 %%", found, capacity)
	}
}

func TestAnswersConcurrent(t *testing.T) {
	s := table.NewAnswers[answer](100, nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20000 {
				k := table.Key{Name: fmt.Sprint((i * (g + 1)) % 300)}
				if a := s.Get(k); a == nil {
					s.Put(k, answer{key: k})
				} else if a.key != k {
					t.Errorf("Get(%v) = answer of %v", k, a.key)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := s.Stats().Entries; got > 100 {
		t.Errorf("%d entries, want at most 100", got)
	}
}

func TestAnswersHitDoesNotAllocate(t *testing.T) {
	s := table.NewAnswers[answer](10, nil)
	k := table.Key{Name: "web.fluid.internal.", Tag: 1}
	s.Put(k, answer{})
	if n := testing.AllocsPerRun(100, func() {
		if s.Get(k) == nil {
			t.Fatal("missed")
		}
	}); n != 0 {
		t.Errorf("a hit allocates %v times, want 0", n)
	}
}

// What is out of date goes before anything else, whether it is asked for or not,
// and makes no store grow.
func TestAnswersOutOfDate(t *testing.T) {
	key := func(n int) table.Key { return table.Key{Name: fmt.Sprintf("n%d", n)} }
	t.Run("no room", func(t *testing.T) {
		old := 0 // answers below are out of date
		s := table.NewAnswers(100, func(a *answer) bool { return a.n >= old })
		for n := range 100 {
			s.Put(key(n), answer{key(n), n})
		}
		old = 50
		for n := range 150 {
			s.Get(key(n)) // all are in use
			if n >= 100 {
				s.Put(key(n), answer{key(n), n})
				s.Get(key(n))
			}
		}
		found := 0
		for n := 50; n < 150; n++ {
			if s.Get(key(n)) != nil {
				found++
			}
		}
		if found < 95 { // a few sets overflow
			t.Errorf("%d of 100 answers that are up to date are left", found)
		}
	})
	t.Run("room", func(t *testing.T) {
		const live = 100
		old := 0
		s := table.NewAnswers(1_000_000, func(a *answer) bool { return a.n >= old })
		for n := range 100_000 {
			old = n - live
			s.Put(key(n), answer{key(n), n})
		}
		// Some sets overflow: one answer in a hundred may go too early.
		if got := s.Stats(); got.Entries > 6*live || got.Evictions > 1000 {
			t.Errorf("got %+v, want no more than there is room for %d", got, live)
		}
		found := 0
		for n := 100_000 - live; n < 100_000; n++ {
			if s.Get(key(n)) != nil {
				found++
			}
		}
		if found < live-10 {
			t.Errorf("%d of %d answers that are up to date are left", found, live)
		}
	})
}
