package table_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/table"
)

// TestMapAgainstGoMap runs the same random steps on a Map and on a Go map.
func TestMapAgainstGoMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, want := table.NewMap[int](0), map[string]*int{}
		names := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("s%d", rapid.IntRange(0, 60).Draw(t, "n")) })
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				name, v := names.Draw(t, "name"), new(int)
				if got := m.Store(name, v); got != want[name] {
					t.Fatalf("Store(%q) replaced %p, want %p", name, got, want[name])
				}
				want[name] = v
			},
			"delete": func(t *rapid.T) {
				name := names.Draw(t, "name")
				if got := m.Delete(name); got != want[name] {
					t.Fatalf("Delete(%q) = %p, want %p", name, got, want[name])
				}
				delete(want, name)
			},
			"": func(t *rapid.T) {
				if got := maps.Collect(m.All()); !maps.Equal(got, want) {
					t.Fatalf("All() = %v, want %v", got, want)
				}
				if m.Len() != len(want) {
					t.Fatalf("Len() = %d, want %d", m.Len(), len(want))
				}
				name := names.Draw(t, "name")
				if got := m.Lookup(name); got != want[name] {
					t.Fatalf("Lookup(%q) = %p, want %p", name, got, want[name])
				}
			},
		})
	})
}

func TestCellOutlivesRemoval(t *testing.T) {
	m := table.NewMap[int](0)
	first, second := new(int), new(int)
	m.Store("web", first)
	cell := m.Cell("web")
	m.Delete("web")
	if got := cell.Load(); got != nil {
		t.Errorf("cell of a deleted name holds %p, want nil", got)
	}
	for i := range 1000 { // grows the index, which drops the empty cell
		m.Store(fmt.Sprint(i), new(int))
	}
	m.Store("web", second)
	if got := m.Lookup("web"); got != second {
		t.Errorf("Lookup after return = %p, want %p", got, second)
	}
	if got := cell.Load(); got == first {
		t.Error("the old cell holds the first value again")
	}
}

// TestMapConcurrent checks that readers see a value that was current, and
// never miss a name that is always there, while writers work.
func TestMapConcurrent(t *testing.T) {
	m := table.NewMap[int](0)
	fixed := new(int)
	m.Store("fixed", fixed)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprint(i % 5000)
				m.Store(name, new(int))
				m.Delete(fmt.Sprint((i + 2500) % 5000))
			}
		})
	}
	deadline := time.Now().Add(200 * time.Millisecond)
	for n := 0; time.Now().Before(deadline); n++ {
		if got := m.Lookup("fixed"); got != fixed {
			t.Fatalf("Lookup(fixed) = %p, want %p", got, fixed)
		}
	}
	close(stop)
	wg.Wait()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	m := table.NewMap[int](0)
	m.Store("web", new(int))
	if n := testing.AllocsPerRun(100, func() { m.Lookup("web"); m.Lookup("none") }); n != 0 {
		t.Errorf("Lookup allocates %v times, want 0", n)
	}
}
