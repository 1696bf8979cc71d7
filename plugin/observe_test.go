package fluid

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/plugin/record"
)

// samples returns the value of each of the plugin's metrics, by name and
// labels.
func samples(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "coredns_fluid_") {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "server" {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
			}
			slices.Sort(labels)
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	a := newAgent(t)
	s := serve(t, strings.Replace(zoneFile, "ttl 7", "startup_timeout 0s", 1), a)
	before := samples(t)
	s.ask("checkout.fluid.internal.", dns.TypeA)
	fill(t, a)
	s.caughtUp()
	for range 3 {
		s.ask("checkout.fluid.internal.", dns.TypeA)
	}
	s.ask("checkout.fluid.internal.", dns.TypeAAAA)
	s.ask("nobody.fluid.internal.", dns.TypeA)
	s.ask("fluid.internal.", dns.TypeAXFR)
	after := samples(t)
	count := func(result string) float64 {
		key := "coredns_fluid_requests_total{result=" + result + ",view=,zone=fluid.internal.}"
		return after[key] - before[key]
	}
	for result, want := range map[string]float64{"answer": 3, "nodata": 1, "nxdomain": 1, "refused": 1, "unsynced": 1} {
		if got := count(result); got != want {
			t.Errorf("%v queries counted as %s, want %v", got, result, want)
		}
	}
	for key, want := range map[string]float64{
		"coredns_fluid_entries{type=service}": 5, "coredns_fluid_state{state=fresh}": 1, "coredns_fluid_state{state=stale}": 0,
		"coredns_fluid_applied_index{}": 1, "coredns_fluid_applied_generation{}": 1, "coredns_fluid_agent_connected{}": 1,
		"coredns_fluid_answers_hits_total{type=answer}": 2, "coredns_fluid_events_total{type=snapshot}": 1,
	} {
		if got := after[key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}

	// The manual names every metric, and no other.
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, name := range regexp.MustCompile(`coredns_fluid_\w+`).FindAllString(string(text), -1) {
		documented[name] = true
	}
	truncated.WithLabelValues("udp")
	exported := map[string]bool{}
	for key := range samples(t) {
		name, _, _ := strings.Cut(key, "{")
		exported[name] = true
	}
	described := make(chan *prometheus.Desc, 100)
	collector{}.Describe(described) // some are there only in a mesh
	meshCollector{}.Describe(described)
	close(described)
	for d := range described {
		exported[regexp.MustCompile(`coredns_fluid_\w+`).FindString(d.String())] = true
	}
	for name := range exported {
		if !documented[name] {
			t.Errorf("%s is not in the manual", name)
		}
	}
	for name := range documented {
		if !exported[name] {
			t.Errorf("%s is in the manual, but nowhere else", name)
		}
	}
}

func TestMetadata(t *testing.T) {
	f, e := loaded(t, []record.Entry{instance(t, "web 10.0.0.1")})
	for name, want := range map[string][3]string{
		"web.example.org.":    {"fresh", e.position().String(), "web"},
		"nobody.example.org.": {"fresh", e.position().String(), ""},
	} {
		q := queryFor(name, dns.TypeA, 0)
		ctx := f.Metadata(metadata.ContextWithMetadata(t.Context()), request.Request{W: silent, Req: q})
		for i, label := range []string{"fluid/state", "fluid/position", "fluid/service"} {
			if get := metadata.ValueFunc(ctx, label); get == nil || get() != want[i] {
				t.Errorf("%s: %s is missing or not %q", name, label, want[i])
			}
		}
	}
	other := request.Request{W: silent, Req: queryFor("example.net.", dns.TypeA, 0)}
	if ctx := f.Metadata(metadata.ContextWithMetadata(t.Context()), other); metadata.ValueFunc(ctx, "fluid/state") != nil {
		t.Error("metadata for a name of another zone")
	}
}

func TestReady(t *testing.T) {
	f := &Fluid{shared: &shared{}}
	if f.Ready() {
		t.Error("ready before the start")
	}
	e := newEngine(process{GossipNode: "x"})
	t.Cleanup(e.close)
	f.engine.Store(e)
	if f.Ready() {
		t.Error("ready with nothing to answer from")
	}
	for _, state := range []int32{fresh, stale} {
		if e.state.Store(state); !f.Ready() {
			t.Errorf("not ready when %s", stateNames[state])
		}
	}
}

// TestClockOutlivesAPanic: a panic costs one tick, and leaves no lock behind
// that others wait for.
func TestClockOutlivesAPanic(t *testing.T) {
	e := newEngine(process{GossipNode: "x"})
	wall, ticks := e.wall, 0
	e.wall = func() time.Time {
		if ticks++; ticks == 1 {
			panic("test")
		}
		return wall()
	}
	for range 2 {
		e.guard("clock", e.beat)
	}
	if !e.mu.TryLock() {
		t.Fatal("the engine stayed locked")
	}
	defer e.mu.Unlock()
	if e.advanced.IsZero() {
		t.Error("the second tick did nothing")
	}
}
