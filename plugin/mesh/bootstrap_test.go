package mesh_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

var bootstrapRecords = flag.Int("bootstrap.records", 40_000, "instances that a new member fetches")

// TestBootstrap lets a member without anything fetch a whole catalog of
// reference instances (A record, port, two tags) from two others, over sockets,
// with keys and compression.
func TestBootstrap(t *testing.T) {
	const perOrigin = 20_000
	w := &socketWorld{impl: mesh.CRDT, keys: [][]byte{key(1)}}
	a := start(t, w, "agent-a", mesh.RoleAgent, nil)
	fill(t, a, *bootstrapRecords, perOrigin)
	b := start(t, w, "dns-1", mesh.RoleDNS, nil, a)
	whole := func(n *node) func() bool {
		return func() bool { return records(n) >= *bootstrapRecords }
	}
	eventually(t, 60*time.Second, "the second member has everything", whole(b))

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	c := start(t, w, "dns-2", mesh.RoleDNS, nil, a, b)
	eventually(t, 60*time.Second, "the new member has everything", whole(c))
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d instances in %v; %.0f MB of live heap for the new member; the process with three members: %s",
		*bootstrapRecords, took.Round(time.Millisecond), float64(after.HeapAlloc-before.HeapAlloc)/1e6, resident())
	if took > 15*time.Second {
		t.Errorf("took %v, want at most 15 s", took)
	}
}

// resident returns the process's peak resident set, as the kernel states it.
func resident() string {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return "unknown"
}

func records(n *node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	total := 0
	for _, o := range n.c.Origins() {
		total += o.Records
	}
	return total
}

func fill(t *testing.T, n *node, total, perOrigin int) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for origin := 0; origin*perOrigin < total; origin++ {
		d := catalog.Delta{Origin: record.OriginID{byte(origin), 9}, Epoch: 1}
		for i := origin * perOrigin; i < min(total, (origin+1)*perOrigin); i++ {
			in := record.Instance{
				Service: fmt.Sprintf("svc-%d", i/20), Weight: 1, Port: 8080, Tags: []string{"green", "v1"},
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}, Registered: 1_790_000_000_000,
			}
			in.Normalize()
			d.To++
			d.Items = append(d.Items, catalog.Item{
				Key: record.InstanceKey(in.Service, in.ID), Seq: d.To, HLC: 1, Value: string(in.Append(nil)),
			})
		}
		if _, err := n.c.Merge(time.Now().UnixMilli(), &d); err != nil {
			t.Fatal(err)
		}
	}
}
