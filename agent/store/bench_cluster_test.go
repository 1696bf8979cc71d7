package store

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"golang.org/x/sys/unix"

	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/raftnet"
	"github.com/fluid-sd/fluid/plugin/record"
)

// BenchmarkCluster compares three servers on loopback with mutual TLS: bare
// Raft with raft-wal and a state machine that does nothing, the store with one
// command per entry, and the store as it is. All three have the same payload,
// settings of Raft and transport; their rounds alternate, so that a ratio holds
// also on a busy machine. FLUID_ROUNDS sets how many rounds each is given.
//
//	go test -run - -bench Cluster -benchtime 1x ./agent/store
func BenchmarkCluster(b *testing.B) {
	single := func(c *Config) { c.single = true }
	compareAll(b, []*system{bareSystem(b), storeSystem("single", threeStores(b, single)), storeSystem("store", threeStores(b))})
}

func compareAll(b *testing.B, systems []*system) {
	b.Helper()
	rounds := 5
	if v, err := strconv.Atoi(os.Getenv("FLUID_ROUNDS")); err == nil {
		rounds = v
	}
	for _, writers := range []int{64, 512} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			for b.Loop() {
				compare(b, systems, writers, rounds)
			}
		})
	}
}

// system is a cluster that is measured.
type system struct {
	name  string
	write func(ctx context.Context, n uint64) error // n numbers the writes
	n     atomic.Uint64

	rates   []float64 // commands per second, by round
	work    []float64 // processor time per command in µs, by round
	latency []time.Duration
}

// compare runs rounds of all systems in turn and reports medians.
func compare(b *testing.B, systems []*system, writers, rounds int) {
	b.Helper()
	const warm, length = 100 * time.Millisecond, 500 * time.Millisecond
	for _, s := range systems {
		s.run(b, writers, warm)
		s.rates, s.work, s.latency = nil, nil, nil
	}
	for range rounds {
		for _, s := range systems {
			s.run(b, writers, length)
		}
	}
	if b.Failed() {
		b.FailNow()
	}
	first := systems[0]
	for _, s := range systems {
		ratios := make([]float64, rounds)
		for i := range ratios {
			ratios[i] = s.rates[i] / first.rates[i]
		}
		slices.Sort(ratios)
		slices.Sort(s.latency)
		rates := slices.Sorted(slices.Values(s.rates))
		b.ReportMetric(rates[rounds/2], s.name+"-commands/s")
		b.ReportMetric(slices.Sorted(slices.Values(s.work))[rounds/2], s.name+"-cpu-µs")
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(s.latency[len(s.latency)*p/100].Microseconds()), fmt.Sprintf("%s-p%d-µs", s.name, p))
		}
		if s != first {
			b.ReportMetric(ratios[rounds/2], s.name+"/"+first.name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// run writes for about d, and notes how it went.
func (s *system) run(b *testing.B, writers int, d time.Duration) {
	b.Helper()
	var wg sync.WaitGroup
	took := make([][]time.Duration, writers)
	start, used := time.Now(), cpuTime(b)
	for w := range writers {
		wg.Go(func() {
			for {
				began := time.Now()
				if began.Sub(start) >= d {
					return
				}
				if err := s.write(b.Context(), s.n.Add(1)); err != nil {
					b.Error(err)
					return
				}
				took[w] = append(took[w], time.Since(began))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	all := slices.Concat(took...)
	s.latency = append(s.latency, all...)
	s.rates = append(s.rates, float64(len(all))/elapsed)
	s.work = append(s.work, float64((cpuTime(b)-used).Microseconds())/float64(len(all)))
}

// cpuTime returns the processor time that the process, which holds the clients
// and all servers of all systems, has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// payload is the nth write: an instance of one of 100 services that has moved
// to another port, of a hundred each.
func payload(n uint64) record.Instance {
	in := instance(fmt.Sprintf("service-%d", n%100), "10.0.0.1")
	in.ID, in.Port = fmt.Sprintf("i%d", n/100%100), uint16(1+n/10_000%60_000)
	return in
}

// benchNet is what the servers of one cluster know of each other.
type benchNet struct {
	ca *pki.CA

	mu      sync.Mutex // guards what follows
	remotes map[raft.ServerID]raftnet.Remote
}

func newBenchNet(b *testing.B) *benchNet {
	b.Helper()
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	return &benchNet{ca: ca, remotes: map[raft.ServerID]raftnet.Remote{}}
}

func (n *benchNet) resolve(id raft.ServerID) (raftnet.Remote, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.remotes[id]
	return r, ok
}

// transport returns the transport of a server, over TLS.
func (n *benchNet) transport(dir, id, name string) (raft.Transport, error) {
	cert, key, err := n.ca.Issue(pki.Request{Identity: pki.Identity{Name: name}}, time.Now())
	if err != nil {
		return nil, err
	}
	ca, _, err := n.ca.PEM()
	if err != nil {
		return nil, err
	}
	files := pki.Files{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "c.key"), CA: filepath.Join(dir, "ca.pem")}
	for path, data := range map[string][]byte{files.Cert: cert, files.Key: key, files.CA: ca} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return nil, err
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	reloader, err := pki.NewReloader(files, time.Now, quiet)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	layer, err := raftnet.New(raftnet.Config{
		Listener: l, Self: pki.Identity{ID: id, Name: name}, TLS: reloader, Log: quiet,
		Cluster: func() string { return "" }, Resolve: n.resolve,
	})
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remotes[raft.ServerID(id)] = raftnet.Remote{Addr: layer.Addr().String(), Name: name}
	return raftnet.NewTransport(layer, hclog.NewNullLogger()), nil
}

func storeSystem(name string, leader *Store) *system {
	return &system{name: name, write: func(ctx context.Context, i uint64) error {
		_, err := leader.Register(ctx, Meta{Principal: "bench"}, []record.Instance{payload(i)})
		return err
	}}
}

// threeStores returns the leader of a cluster of three.
func threeStores(b *testing.B, edit ...func(*Config)) *Store {
	b.Helper()
	n := newBenchNet(b)
	var leader *Store
	for i := range 3 {
		certs, server := b.TempDir(), fmt.Sprintf("node%d", i)
		cfg := testConfig(b.TempDir())
		cfg.Name, cfg.Bootstrap = server, i == 0
		cfg.StabilizationTime, cfg.SnapshotInterval = 50*time.Millisecond, time.Hour
		patient(&cfg)
		cfg.Transport = func(id string) (raft.Transport, error) { return n.transport(certs, id, server) }
		for _, e := range edit {
			e(&cfg)
		}
		s, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.close(false) })
		if i == 0 {
			leader = s
			await(b, "a leader", s.IsLeader)
			continue
		}
		req := JoinRequest{ServerInfo: s.self(), Addr: string(s.peers.LocalAddr())}
		if _, err := leader.Join(b.Context(), Meta{}, req); err != nil {
			b.Fatal(err)
		}
	}
	await(b, "three voters", func() bool { return len(leader.voters()) == 3 })
	return leader
}

// patient lets no server stand for election because the machine is busy.
func patient(c *Config) {
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaseTimeout = 3*time.Second, 3*time.Second, 3*time.Second
}

// bareSystem is a cluster of three bare Rafts.
func bareSystem(b *testing.B) *system {
	b.Helper()
	n := newBenchNet(b)
	var nodes []*raft.Raft
	var servers []raft.Server
	var starts []func() error
	for i := range 3 {
		dir, id := b.TempDir(), fmt.Sprintf("node%d", i)
		trans, err := n.transport(dir, id, id)
		if err != nil {
			b.Fatal(err)
		}
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: trans.LocalAddr()})
		log, err := wal.Open(dir, wal.WithSegmentSize(segmentSize))
		if err != nil {
			b.Fatal(err)
		}
		cfg := testConfig(dir)
		patient(&cfg)
		if err := cfg.setDefaults(); err != nil {
			b.Fatal(err)
		}
		cfg.SnapshotInterval = time.Hour
		starts = append(starts, func() error {
			r, err := raft.NewRaft(cfg.raft(id), idleFSM{}, log, log, raft.NewInmemSnapshotStore(), trans)
			if err == nil {
				nodes = append(nodes, r)
				b.Cleanup(func() {
					_ = r.Shutdown().Error()
					_ = trans.(raft.WithClose).Close()
					_ = log.Close()
				})
			}
			return err
		})
	}
	for _, start := range starts {
		if err := start(); err != nil {
			b.Fatal(err)
		}
	}
	if err := nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		b.Fatal(err)
	}
	var leader *raft.Raft
	await(b, "a bare leader", func() bool {
		i := slices.IndexFunc(nodes, func(r *raft.Raft) bool { return r.State() == raft.Leader })
		if i >= 0 {
			leader = nodes[i]
		}
		return i >= 0
	})
	return &system{name: "raft", write: func(_ context.Context, i uint64) error {
		in := payload(i)
		c := command{op: opRegister, meta: Meta{Principal: "bench"}, values: []string{encoded(in)}}
		e := logEntry{time: time.Now().UnixMilli(), maxInstances: 1_000_000, maxBytes: 1 << 30, commands: []string{string(c.append(nil))}}
		return leader.Apply(e.append(nil), time.Minute).Error()
	}}
}

// idleFSM does nothing.
type idleFSM struct{}

func (idleFSM) Apply(*raft.Log) any                 { return nil }
func (idleFSM) ApplyBatch(logs []*raft.Log) []any   { return make([]any, len(logs)) }
func (idleFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errReplaying }
func (idleFSM) Restore(r io.ReadCloser) error       { return r.Close() }

// await waits for a condition.
func await(b *testing.B, what string, ok func() bool) {
	b.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(30 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			b.Fatalf("after 30 s: not %s", what)
		}
	}
}
