package store

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

// BenchmarkMillion registers a million critical instances, takes a snapshot,
// lets a second server catch up from it over TLS, and opens the first anew. It
// prints times, the snapshot's size and the greatest memory of the process,
// which holds both servers. FLUID_MILLION=1 asks for it.
//
//	FLUID_MILLION=1 go test -run - -bench Million -benchtime 1x ./agent/store
func BenchmarkMillion(b *testing.B) {
	if os.Getenv("FLUID_MILLION") == "" {
		b.Skip("takes a minute; FLUID_MILLION=1 asks for it")
	}
	const total = 1_000_000
	for b.Loop() {
		n := newBenchNet(b)
		start := func(i int, dir, certs string) *Store {
			name, none := fmt.Sprintf("node%d", i), uint64(0)
			cfg := testConfig(dir)
			cfg.Name, cfg.Bootstrap, cfg.trailingLogs = name, i == 0, &none
			cfg.SnapshotInterval, cfg.WriteTimeout = time.Hour, time.Minute
			cfg.Transport = func(id string) (raft.Transport, error) { return n.transport(certs, id, name) }
			s, err := Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			return s
		}
		dir, certs := b.TempDir(), b.TempDir()
		first := start(0, dir, certs)
		await(b, "a leader", first.IsLeader)
		timed := func(what string, f func()) {
			began := time.Now()
			f()
			b.ReportMetric(time.Since(began).Seconds(), what+"-s")
		}
		timed("register", func() {
			for i := 0; i < total; i += MaxBatch {
				ins := make([]record.Instance, MaxBatch)
				for j := range ins {
					ins[j] = instance(fmt.Sprintf("s%d", (i+j)/100), "10.0.0.1")
					ins[j].ID, ins[j].Node = fmt.Sprintf("i%d", i+j), fmt.Sprintf("host%d", j)
				}
				if _, err := first.Register(b.Context(), Meta{}, ins); err != nil {
					b.Fatal(err)
				}
			}
		})
		timed("snapshot", func() {
			if err := first.node().Snapshot().Error(); err != nil {
				b.Fatal(err)
			}
		})
		files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.snap"))
		if err != nil || len(files) == 0 {
			b.Fatalf("snapshots: %v, %v", files, err)
		}
		fi, err := os.Stat(files[len(files)-1])
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(fi.Size())/(1<<20), "snapshot-MiB")
		second := start(1, b.TempDir(), b.TempDir())
		timed("catch-up", func() {
			req := JoinRequest{ServerInfo: second.self(), Addr: string(second.peers.LocalAddr())}
			if _, err := first.Join(b.Context(), Meta{}, req); err != nil {
				b.Fatal(err)
			}
			await(b, "caught up", func() bool { return second.State().Instances() == total })
		})
		if got, want := second.State(), first.State(); got.Position() == want.Position() && got.Hash() != want.Hash() {
			b.Fatalf("the second server has hash %x, want %x", got.Hash(), want.Hash())
		}
		if err := second.close(false); err != nil {
			b.Fatal(err)
		}
		if err := first.close(false); err != nil {
			b.Fatal(err)
		}
		timed("restore", func() { first = start(0, dir, certs) })
		if got := first.State().Instances(); got != total {
			b.Fatalf("%d instances after opening anew", got)
		}
		if err := first.close(false); err != nil {
			b.Fatal(err)
		}
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		if m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status); m != nil {
			var kib float64
			_, _ = fmt.Sscan(string(m[1]), &kib)
			b.ReportMetric(kib/1024, "peak-MiB")
		}
	}
}
