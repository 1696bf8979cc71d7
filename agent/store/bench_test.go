package store

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// BenchmarkRegister prints how long a registration takes, beside a bare write
// and fsync on the same disk, which is the floor.
func BenchmarkRegister(b *testing.B) {
	s := benchStore(b)
	f, err := os.Create(filepath.Join(b.TempDir(), "fsync"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var writes, syncs []time.Duration
	buf := make([]byte, 256)
	for i := 0; b.Loop(); i++ {
		in := instance("bench", "10.0.0.1")
		in.ID = fmt.Sprintf("i%d", i)
		start := time.Now()
		if _, err := s.Register(b.Context(), Meta{}, []record.Instance{in}); err != nil {
			b.Fatal(err)
		}
		writes = append(writes, time.Since(start))
		start = time.Now()
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		syncs = append(syncs, time.Since(start))
	}
	report(b, "write", writes)
	report(b, "fsync", syncs)
}

func report(b *testing.B, what string, d []time.Duration) {
	slices.Sort(d)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(d[len(d)*p/100].Microseconds()), fmt.Sprintf("%s-p%d-µs", what, p))
	}
}

// BenchmarkWriters compares commands per second with and without the
// coalescing of commands into entries, and with bare Raft on the same files.
func BenchmarkWriters(b *testing.B) {
	for _, writers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("store/writers=%d", writers), func(b *testing.B) {
			s := benchStore(b)
			var n atomic.Uint64
			inParallel(b, writers, func() error {
				in := instance("bench", "10.0.0.1")
				in.ID = fmt.Sprintf("i%d", n.Add(1))
				_, err := s.Register(b.Context(), Meta{}, []record.Instance{in})
				return err
			})
		})
		b.Run(fmt.Sprintf("raft/writers=%d", writers), func(b *testing.B) {
			s := benchStore(b)
			in := instance("bench", "10.0.0.1")
			e := logEntry{commands: []string{string((&command{op: opExpire, values: []string{encoded(in)}}).append(nil))}}
			data := e.append(nil)
			inParallel(b, writers, func() error { return s.node().Apply(data, time.Minute).Error() })
		})
	}
}

func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(testConfig(b.TempDir()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	for deadline := time.Now().Add(20 * time.Second); !s.IsLeader(); {
		if time.Now().After(deadline) {
			b.Fatal("no leader")
		}
		select {
		case <-s.Changed(s.position()):
		case <-time.After(time.Millisecond):
		}
	}
	return s
}

func inParallel(b *testing.B, writers int, f func() error) {
	b.Helper()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
}

// BenchmarkSnapshot writes and reads a state of a million instances, and
// prints times and sizes.
func BenchmarkSnapshot(b *testing.B) {
	const n = 1_000_000
	m := newMachine()
	for i := 0; i < n; i += 1000 {
		c := command{op: opRegister}
		for j := i; j < i+1000; j++ {
			in := instance(fmt.Sprintf("s%d", j/100), "10.0.0.1")
			in.ID, in.Node, in.Port, in.Zone = fmt.Sprintf("i%d", j), fmt.Sprintf("host%d", j%2000), uint16(1+j%60000), "z1"
			in.Tags = []string{"blue", "v2"}
			c.values = append(c.values, encoded(in))
		}
		if o := m.do(c); o.err != nil {
			b.Fatal(o.err)
		}
	}
	s := m.f.current.Load()
	runtime.GC()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	heap := ms.HeapAlloc
	b.ResetTimer()
	for b.Loop() {
		f, err := os.Create(filepath.Join(b.TempDir(), "snapshot"))
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := (State{s}).WriteSnapshot(f); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "write-s")
		size, err := f.Seek(0, 1)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.Seek(0, 0); err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		again, err := readSnapshot(f)
		if err != nil || again.hash != s.hash {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "read-s")
		b.ReportMetric(float64(size)/(1<<20), "MiB")
		b.ReportMetric(float64(heap)/(1<<20), "heap-MiB")
		_ = f.Close()
	}
}
