package agenttest

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	// million is how many instances the benchmark registers, in services of 100.
	million = 1_000_000
	// wantSlowdown bounds p99 of DNS during a snapshot, as a multiple of idle.
	wantSlowdown = 2
	// millionRate is how many queries are asked a second.
	millionRate = 2000
)

// BenchmarkSnapshotBesideDNS restores a snapshot of a million critical
// instances into an agent beside CoreDNS, both real processes, and compares the
// time that DNS takes to answer while the agent is idle and while it writes a
// snapshot, again and again. FLUID_MILLION=1 asks for it.
//
//	FLUID_MILLION=1 go test -run - -bench SnapshotBesideDNS -benchtime 1x ./agent/agenttest
func BenchmarkSnapshotBesideDNS(b *testing.B) {
	if os.Getenv("FLUID_MILLION") == "" {
		b.Skip("takes minutes and 4 GiB; FLUID_MILLION=1 asks for it")
	}
	h := newHost(b)
	snap := millionSnapshot(b)
	const threshold = 500 // entries, more than restoring makes
	h.startAgent(fmt.Sprintf("RAFT_SNAPSHOT_THRESHOLD=%d", threshold), "RAFT_SNAPSHOT_INTERVAL=1s")
	began := time.Now()
	req, err := http.NewRequest(http.MethodPost, "http://"+h.http+"/v1/snapshot", bytes.NewReader(snap))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := (&http.Client{Timeout: 3 * time.Minute}).Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("restore: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	b.Logf("restored %d MiB in %v", len(snap)>>20, time.Since(began))
	began = time.Now()
	h.startDNS()
	last := fmt.Sprintf("s%d", million/100-1) + zone
	for !resolves(h.dns, last, millionAddrs()...) {
		if time.Since(began) > 5*time.Minute {
			b.Fatalf("%s is not answered", last)
		}
		<-time.After(100 * time.Millisecond)
	}
	b.Logf("CoreDNS had it after %v", time.Since(began))
	for b.Loop() {
		h.askDuringSnapshots(b, threshold)
	}
}

// askDuringSnapshots measures, in turn, a while without and one with a
// snapshot, and reports what they took.
func (h *host) askDuringSnapshots(b *testing.B, threshold int) {
	b.Helper()
	const settling, idle, other, during = int64(0), int64(1), int64(2), int64(3)
	var phase atomic.Int64
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("s%d", i*7) + zone
	}
	took := map[int64]latency{}
	l := startLoad(b, h.dns, millionRate, names, phase.Load, func(q query, r *dns.Msg) error {
		if q.mark == phase.Load() { // not one that lasted into the next phase
			took[q.mark] = append(took[q.mark], time.Since(q.at))
		}
		if len(r.Answer) == 0 {
			return fmt.Errorf("%s: %v", q.name, r)
		}
		return nil
	})
	var lasted latency
	for round := range 12 {
		phase.Store(settling)
		<-time.After(time.Second)
		phase.Store(idle)
		<-time.After(time.Second)
		phase.Store(other)
		before := h.snapshots("*.snap")
		for i := range threshold {
			code, body := h.call(http.MethodPost, "/v1/apps", fmt.Sprintf(`{"appId":"s1","id":"i100","ip":"10.0.0.1","port":%d}`, 1+(round*threshold+i)%60000))
			if code/100 != 2 {
				b.Fatalf("register: %d %s", code, body)
			}
		}
		await := func(what string, ok func() bool) {
			b.Helper()
			for limit := time.Now().Add(time.Minute); !ok(); <-time.After(time.Millisecond) {
				if time.Now().After(limit) {
					b.Fatalf("not within a minute: %s", what)
				}
			}
		}
		await("a snapshot is begun", func() bool { return len(h.snapshots("*.tmp")) > 0 })
		began := time.Now()
		phase.Store(during)
		await("a snapshot is there", func() bool { return !slices.Equal(h.snapshots("*.snap"), before) })
		phase.Store(other)
		lasted = append(lasted, time.Since(began))
	}
	l.finish()
	slices.Sort(lasted)
	slices.Sort(took[idle])
	slices.Sort(took[during])
	b.Logf("idle:            %v", took[idle])
	b.Logf("during snapshot: %v", took[during])
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	b.ReportMetric(lasted.at(.5).Seconds(), "snapshot-s")
	b.ReportMetric(us(took[idle].at(.5)), "idle-p50-µs")
	b.ReportMetric(us(took[idle].at(.99)), "idle-p99-µs")
	b.ReportMetric(us(took[during].at(.5)), "during-p50-µs")
	b.ReportMetric(us(took[during].at(.99)), "during-p99-µs")
	slowdown := us(took[during].at(.99)) / us(took[idle].at(.99))
	b.ReportMetric(slowdown, "during/idle-p99")
	if slowdown > wantSlowdown {
		b.Errorf("p99 during a snapshot is %.1f times idle, want at most %d", slowdown, wantSlowdown)
	}
}

// snapshots lists files of the agent's snapshot directory.
func (h *host) snapshots(pattern string) []string {
	files, err := filepath.Glob(filepath.Join(h.dir, "data", "*", "snapshots", pattern))
	if err != nil {
		h.t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(h.dir, "data", "snapshots", pattern))
	if err != nil {
		h.t.Fatal(err)
	}
	return append(files, more...)
}

// millionAddrs is what a service of the snapshot answers.
func millionAddrs() []string { return []string{"10.0.0.1"} }

// millionSnapshot returns a snapshot of a million instances.
func millionSnapshot(b *testing.B) []byte {
	b.Helper()
	s, err := store.Open(store.Config{
		Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler), Name: "seed", Bootstrap: true,
		SnapshotInterval: time.Hour, WriteTimeout: time.Minute,
		Transport: func(id string) (raft.Transport, error) {
			_, tr := raft.NewInmemTransport(raft.ServerAddress(id))
			tr.Connect(tr.LocalAddr(), tr) // so that the store hastens its election
			return tr, nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	eventually(b, "a leader", s.IsLeader)
	ins := make([]record.Instance, store.MaxBatch)
	for i := 0; i < million; i += len(ins) {
		for j := range ins {
			ins[j] = record.Instance{
				Service: fmt.Sprintf("s%d", (i+j)/100), ID: fmt.Sprintf("i%d", i+j), Node: fmt.Sprintf("host%d", j),
				Addrs: []netip.Addr{netip.MustParseAddr(millionAddrs()[0])}, Weight: record.DefaultWeight,
			}
		}
		if _, err := s.Register(b.Context(), store.Meta{}, ins); err != nil {
			b.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := s.State().WriteSnapshot(&out); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}
