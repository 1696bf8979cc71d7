package agenttest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const zone = ".fluid.internal."

// TestAgentKilledUnderLoad kills the agent with SIGKILL while 1,000 queries a
// second are asked. Every query is answered, with what was committed; EDE,
// metrics and readiness tell the truth; and after a restart the plugin goes on
// from where it was.
func TestAgentKilledUnderLoad(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.startDNS()
	names := []string{"clock" + zone}
	for i := range 20 {
		app := fmt.Sprintf("app-%d", i)
		h.register(app, fmt.Sprintf("10.0.0.%d", i))
		names = append(names, app+zone)
	}
	tick := h.clock(0)
	tick()
	for _, name := range names {
		eventually(t, name+" is answered", func() bool {
			r, err := ask(h.dns, name, typeA)
			return err == nil && len(r.Answer) > 0
		})
	}
	h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	h.wantMetric(`coredns_fluid_state{state="fresh"}`, 1)

	// The clock only ever goes forward, all others never change.
	var face clockFace
	l := startLoad(t, h.dns, 1000, names, face.shown.Load, func(q query, r *dns.Msg) error {
		rest, ok := strings.CutPrefix(q.name, "app-")
		if !ok {
			return face.judge(q, r)
		}
		want := "10.0.0." + strings.TrimSuffix(rest, zone)
		if got := addrs(r); r.Rcode != dns.RcodeSuccess || !slices.Equal(got, []string{want}) {
			return fmt.Errorf("%s: got %s %v, want %s", q.name, dns.RcodeToString[r.Rcode], got, want)
		}
		return nil
	})
	for range 50 {
		tick()
	}
	last := tick()
	eventually(t, "the last registration is answered", func() bool { return face.shown.Load() == last })

	h.agent.kill()
	eventually(t, "the metrics say that the agent is gone", func() bool {
		v, ok := h.metricOf("coredns_fluid_agent_connected")
		return ok && v == 0
	})
	if r := mustAsk(t, h.dns, names[0], typeA); len(ede(r)) != 0 {
		t.Errorf("right after the kill: got EDE %v, want none: nothing is stale yet", ede(r))
	}
	eventually(t, "answers are marked stale", func() bool { return l.staleSeen() > 100 })
	h.wantMetric(`coredns_fluid_state{state="stale"}`, 1)
	if got := status("http://" + h.ready + "/ready"); got != http.StatusOK {
		t.Errorf("readiness while the agent is dead: got %d, want 200", got)
	}
	applied, _ := h.metricOf("coredns_fluid_applied_index")

	h.agent = h.launchAgent()
	eventually(t, "answers are fresh again", func() bool {
		r, err := ask(h.dns, names[0], typeA)
		return err == nil && len(ede(r)) == 0
	})
	h.wantMetric(`coredns_fluid_state{state="fresh"}`, 1)
	h.wantMetric("coredns_fluid_agent_connected", 1)
	h.wantMetric(`coredns_fluid_events_total{type="snapshot"}`, 1)
	h.wantMetric(`coredns_fluid_events_total{type="resume"}`, 1)
	if got, _ := h.metricOf("coredns_fluid_applied_index"); got < applied {
		t.Errorf("applied index: got %v after the restart, want at least %v", got, applied)
	}
	if got := face.shown.Load(); got != last {
		t.Errorf("after the restart: got clock %d, want %d", got, last)
	}
	h.awaitAgent()
	tick = h.clock(last)
	for range 20 {
		last = tick()
	}
	eventually(t, "registrations reach DNS again", func() bool { return face.shown.Load() == last })
	h.wantMetric(`coredns_fluid_events_total{type="snapshot"}`, 1)
	l.finish()
}

// clock returns a function that moves the one instance of service clock to
// the next address, 10.A.B.C with the number in A, B and C, and returns it.
func (h *host) clock(n int64) func() int64 {
	return func() int64 {
		h.t.Helper()
		n++
		body := fmt.Sprintf(`{"appId":"clock","id":"only","ip":"10.%d.%d.%d"}`, n>>16&255, n>>8&255, n&255)
		if code, got := h.call(http.MethodPost, "/v1/apps", body); code != http.StatusCreated && code != http.StatusOK {
			h.t.Fatalf("clock %d: got %d %s", n, code, got)
		}
		return n
	}
}

func clockOf(addr string) (n int64, err error) {
	parts := strings.Split(addr, ".")
	for _, p := range parts[1:] {
		b, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return 0, err
		}
		n = n<<8 | int64(b)
	}
	return n, nil
}

// TestCoreDNSKilledWithSnapshot kills both. CoreDNS comes back alone and
// answers from disk, marked stale; when the agent is back too, it goes on from
// where the file was.
func TestCoreDNSKilledWithSnapshot(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	snapshot := "snapshot " + filepath.Join(h.dir, "last-good")
	h.startAgent()
	h.startDNS(snapshot)
	h.register("checkout", "10.0.0.9")
	h.register("gone", "10.0.0.8")
	h.register("checkout", "10.0.0.10")
	if code, body := h.call(http.MethodDelete, "/v1/apps/gone", ""); code != http.StatusOK && code != http.StatusNoContent {
		t.Fatalf("delete: got %d %s", code, body)
	}
	checkout := []string{"10.0.0.10", "10.0.0.9"}
	eventually(t, "the last write is answered", func() bool {
		r, err := ask(h.dns, "gone"+zone, typeA)
		return resolves(h.dns, "checkout"+zone, checkout...) && err == nil && r.Rcode == dns.RcodeNameError
	})
	applied, _ := h.metricOf("coredns_fluid_applied_index")

	h.agent.kill()
	h.coredns.kill()
	h.startDNS(snapshot)
	r := mustAsk(t, h.dns, "checkout"+zone, typeA)
	if got := addrs(r); r.Rcode != dns.RcodeSuccess || !slices.Equal(got, checkout) {
		t.Errorf("from disk: got %s %v, want %v", dns.RcodeToString[r.Rcode], got, checkout)
	}
	if got := ede(r); !slices.Equal(got, []uint16{dns.ExtendedErrorCodeStaleAnswer}) {
		t.Errorf("from disk: got EDE %v, want 3 (stale answer)", got)
	}
	if r := mustAsk(t, h.dns, "gone"+zone, typeA); r.Rcode != dns.RcodeNameError {
		t.Errorf("removed service from disk: got %s, want NXDOMAIN", dns.RcodeToString[r.Rcode])
	}
	h.wantMetric(`coredns_fluid_state{state="stale"}`, 1)
	h.wantMetric("coredns_fluid_applied_index", applied)
	if got := status("http://" + h.ready + "/ready"); got != http.StatusOK {
		t.Errorf("readiness from disk: got %d, want 200", got)
	}

	h.agent = h.launchAgent()
	eventually(t, "answers are fresh again", func() bool {
		r, err := ask(h.dns, "checkout"+zone, typeA)
		return err == nil && len(ede(r)) == 0 && slices.Equal(addrs(r), checkout)
	})
	h.wantMetric(`coredns_fluid_events_total{type="snapshot"}`, 0)
	h.wantMetric(`coredns_fluid_events_total{type="resume"}`, 1)
}

// TestCoreDNSWithoutAnything starts CoreDNS with no agent and no snapshot: it
// must not deny what it does not know.
func TestCoreDNSWithoutAnything(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startDNS("startup_timeout 100ms")
	for _, name := range []string{"checkout" + zone, "never.was" + zone} {
		r := mustAsk(t, h.dns, name, typeA)
		if r.Rcode != dns.RcodeServerFailure || !slices.Equal(ede(r), []uint16{dns.ExtendedErrorCodeNotReady}) {
			t.Errorf("%s: got %s EDE %v, want SERVFAIL EDE 14 (not ready)", name, dns.RcodeToString[r.Rcode], ede(r))
		}
	}
	if got := status("http://" + h.ready + "/ready"); got == http.StatusOK {
		t.Error("readiness before the first sync: got 200")
	}
	h.startAgent()
	h.register("checkout", "10.0.0.9")
	eventually(t, "the agent's word is answered", func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })
	h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
}

// TestSnapshotFileDamaged flips a byte in the middle of the file: it is not
// used, and said so.
func TestSnapshotFileDamaged(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	file := filepath.Join(h.dir, "last-good")
	h.startAgent()
	h.register("checkout", "10.0.0.9")
	h.startDNS("snapshot " + file)
	eventually(t, "the registration is answered", func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })
	eventually(t, "the file is written", func() bool { // after the answer is visible, so that the disk delays no answer
		info, err := os.Stat(file)
		return err == nil && info.Size() > 0
	})
	h.agent.kill()
	h.coredns.kill()
	damage(t, file)
	h.startDNS("snapshot "+file, "startup_timeout 100ms")
	r := mustAsk(t, h.dns, "checkout"+zone, typeA)
	if r.Rcode != dns.RcodeServerFailure || !slices.Equal(ede(r), []uint16{dns.ExtendedErrorCodeNotReady}) {
		t.Errorf("got %s EDE %v, want SERVFAIL EDE 14", dns.RcodeToString[r.Rcode], ede(r))
	}
	if out := h.coredns.out.String(); !strings.Contains(out, file) {
		t.Errorf("the log does not name %s", file)
	}
	h.agent = h.launchAgent()
	eventually(t, "the agent repairs it", func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })
}

// latency is a sorted set of durations.
type latency []time.Duration

func (l latency) at(q float64) time.Duration { return l[min(int(q*float64(len(l))), len(l)-1)] }

func (l latency) String() string {
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, p99.9 %v, max %v of %d",
		l.at(.5), l.at(.9), l.at(.99), l.at(.999), l[len(l)-1], len(l))
}
