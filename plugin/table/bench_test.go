package table_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/table"
)

// names returns n service names, and an order to ask for them in.
func names(n int) (list []string, order []int32) {
	list, order = make([]string, n), make([]int32, 1<<16)
	for i := range list {
		list[i] = fmt.Sprintf("service-%07d", i)
	}
	for i := range order {
		order[i] = rand.Int32N(int32(n))
	}
	return list, order
}

// write makes 1,000 changes a second until stop is closed.
func write(m *table.Map[int], list []string, stop <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; {
		select {
		case <-stop:
			return
		case <-tick.C:
			for range 10 {
				i = (i + 7919) % len(list)
				m.Store(list[i], new(int))
			}
		}
	}
}

// BenchmarkLookup compares a Lookup, with a writer beside it, and a cached
// answer with a read of a bare Go map of the same names.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		list, order := names(n)
		b.Run(fmt.Sprintf("names=%d/gomap", n), func(b *testing.B) {
			m := make(map[string]*int, n)
			for _, name := range list {
				m[name] = new(int)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if m[list[order[i&0xffff]]] == nil {
					b.Fatal("missed")
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("names=%d/map", n), func(b *testing.B) {
			m := table.NewMap[int](0)
			for _, name := range list {
				m.Store(name, new(int))
			}
			stop := make(chan struct{})
			defer close(stop)
			go write(m, list, stop)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if m.Lookup(list[order[i&0xffff]]) == nil {
					b.Fatal("missed")
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("names=%d/answers", n), func(b *testing.B) {
			s := table.NewAnswers[int](2*n, nil)
			for _, name := range list {
				s.Put(table.Key{Name: name, Tag: 1}, 0)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Get(table.Key{Name: list[order[i&0xffff]], Tag: 1})
				i++
			}
		})
	}
}
