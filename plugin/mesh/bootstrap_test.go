package mesh_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

var (
	bootstrapRecords = flag.Int("bootstrap.records", 40_000, "instances that a new member fetches")
	bootstrapSteady  = flag.Duration("bootstrap.steady", 0, "how long to measure what the member uses after that, with nothing to do")
)

// Where the new member is a process of its own, it is told by these.
const (
	bootstrapJoin  = "FLUID_TEST_BOOTSTRAP_JOIN"  // whom to join, comma-separated
	bootstrapCount = "FLUID_TEST_BOOTSTRAP_COUNT" // instances to wait for
	bootstrapRest  = "FLUID_TEST_BOOTSTRAP_REST"  // see bootstrapSteady
)

// TestBootstrap lets a member without anything fetch a whole catalog of
// reference instances (A record, port, two tags) from two others, over sockets,
// with keys and compression. The new member is a process of its own, whose
// peak memory the kernel knows.
func TestBootstrap(t *testing.T) {
	const perOrigin = 20_000
	if runtime.GOOS != "linux" {
		t.Skip("the peak of a process is read from /proc")
	}
	w := &socketWorld{impl: mesh.CRDT, keys: [][]byte{key(1)}}
	a := start(t, w, "agent-a", mesh.RoleAgent, nil)
	fill(t, a, *bootstrapRecords, perOrigin)
	b := start(t, w, "dns-1", mesh.RoleDNS, nil, a)
	eventually(t, 120*time.Second, "the second member has everything", func() bool { return records(b) >= *bootstrapRecords })

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestBootstrapMember$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), bootstrapJoin+"="+a.Self().Addr+","+b.Self().Addr, fmt.Sprint(bootstrapCount, "=", *bootstrapRecords),
		fmt.Sprint(bootstrapRest, "=", *bootstrapSteady))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var took, cpu time.Duration
	var peak, heap int
	line := string(out)
	if i := strings.Index(line, "bootstrap: "); i < 0 {
		t.Fatalf("the member says nothing:\n%s", out)
	} else if _, err := fmt.Sscanf(line[i:], "bootstrap: %d ns, %d ns of CPU, peak %d kB, heap %d kB", &took, &cpu, &peak, &heap); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Logf("%d instances in %v, %v of CPU; peak resident %d MB, live heap %d MB (%d bytes each)", *bootstrapRecords,
		took.Round(time.Millisecond), cpu.Round(time.Millisecond), peak/1000, heap/1000, heap*1000 / *bootstrapRecords)
	if i := strings.Index(line, "steady: "); i >= 0 {
		text, _, _ := strings.Cut(line[i:], "\n")
		t.Log(text)
	}
	if took > 15*time.Second {
		t.Errorf("took %v, want at most 15 s", took)
	}
	if peak > 900_000 {
		t.Errorf("peak %d kB, want at most 900 MB", peak)
	}
}

// TestBootstrapMember is the new member of TestBootstrap.
func TestBootstrapMember(t *testing.T) {
	join := os.Getenv(bootstrapJoin)
	if join == "" {
		t.Skip("runs in a process of its own; see TestBootstrap")
	}
	count, err := strconv.Atoi(os.Getenv(bootstrapCount))
	if err != nil {
		t.Fatal(err)
	}
	w := &socketWorld{impl: mesh.CRDT, keys: [][]byte{key(1)}}
	began := time.Now()
	n := start(t, w, "dns-2", mesh.RoleDNS, nil)
	if _, err := n.Join(t.Context(), strings.Split(join, ",")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 120*time.Second, "the new member has everything", func() bool { return records(n) >= count })
	took, peak := time.Since(began), resident(t)
	cpu := processorTime(t)
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("bootstrap: %d ns, %d ns of CPU, peak %d kB, heap %d kB", took, cpu, peak, mem.HeapAlloc/1000)
	rest, err := time.ParseDuration(os.Getenv(bootstrapRest))
	if err != nil || rest == 0 {
		return
	}
	was, cpu := n.Stats(), processorTime(t)
	<-time.After(rest)
	now := n.Stats()
	t.Logf("steady: %.2f %% of a processor, %.0f bytes/s of frames in and %.0f out, over %v",
		100*float64(processorTime(t)-cpu)/float64(rest),
		float64(now.BytesIn-was.BytesIn)/rest.Seconds(), float64(now.BytesOut-was.BytesOut)/rest.Seconds(), rest)
}

// processorTime returns what this process has used so far, in nanoseconds.
func processorTime(t *testing.T) int64 {
	t.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return use.Utime.Nano() + use.Stime.Nano()
}

// resident returns the process's peak resident set in kB, as the kernel states
// it.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc")
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the kernel states no peak")
	return 0
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
