package agenttest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledWhileWriting kills the agent with SIGKILL at random moments under
// a stream of batches. What was acknowledged is there afterwards, each batch
// is there as a whole or not at all, and a key repeated after the restart does
// not write twice.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	const rounds, size = 4, 5
	h := newHost(t)
	acked := map[int]bool{} // by number of the batch
	next := 0
	batch := func(n int) (body, key string) {
		items := make([]string, size)
		for i := range items {
			items[i] = fmt.Sprintf(`{"appId":"batch-%d","ip":"10.2.0.%d"}`, n, i)
		}
		return "[" + strings.Join(items, ",") + "]", fmt.Sprintf("Idempotency-Key: batch-%d", n)
	}
	for round := range rounds {
		h.startAgent()
		died := make(chan struct{})
		wait := 50*time.Millisecond + rand.N(100*time.Millisecond)
		go func() {
			defer close(died)
			<-time.After(wait)
			h.agent.kill()
		}()
		for down := false; !down; next++ {
			body, key := batch(next)
			code, answer := h.call(http.MethodPost, "/v1/apps", body, key)
			switch code {
			case http.StatusCreated:
				acked[next] = true
			case 0:
				down = true
			default:
				t.Fatalf("batch %d: got %d %s", next, code, answer)
			}
		}
		<-died
		t.Logf("round %d: killed after %v, %d batches acknowledged so far", round, wait, len(acked))
	}
	h.startAgent()
	instances := func(n int) int {
		code, body := h.call(http.MethodGet, fmt.Sprintf("/v1/services/batch-%d", n), "")
		var s struct {
			Instances []any `json:"instances"`
		}
		if code == http.StatusNotFound {
			return 0
		}
		if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
			t.Fatalf("batch %d: got %d %s", n, code, body)
		}
		return len(s.Instances)
	}
	for n := range next {
		got := instances(n)
		if got != size && (got != 0 || acked[n]) {
			t.Errorf("batch %d, acknowledged %v: got %d instances, want %d", n, acked[n], got, size)
		}
		if acked[n] && n%10 != 0 {
			continue
		}
		// The client that got no answer, or lost it, asks again.
		body, key := batch(n)
		code, first := h.call(http.MethodPost, "/v1/apps", body, key)
		again, second := h.call(http.MethodPost, "/v1/apps", body, key)
		if code != http.StatusCreated || again != code || first != second || instances(n) != size {
			t.Errorf("batch %d asked again: got %d %s, then %d %s, want the same 201 twice", n, code, first, again, second)
		}
	}
}

// TestAgentFrozen stops the agent with SIGSTOP, so that its socket stays open
// and takes connections. The plugin leaves it, goes on answering, and goes on
// from where it was when the agent wakes up.
func TestAgentFrozen(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.startDNS()
	h.register("checkout", "10.0.0.9")
	eventually(t, "the registration is answered", func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })

	h.agent.freeze()
	eventually(t, "the plugin leaves the agent", func() bool {
		v, ok := h.metricOf(`coredns_fluid_events_total{type="failure"}`)
		return ok && v >= 2 // the lost one, and one that got no word
	})
	if !resolves(h.dns, "checkout"+zone, "10.0.0.9") {
		t.Error("DNS does not go on")
	}
	if err := h.agent.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin is back", func() bool {
		v, ok := h.metricOf("coredns_fluid_agent_connected")
		return ok && v == 1
	})
	h.register("checkout", "10.0.0.10")
	eventually(t, "the next registration is answered", func() bool {
		return resolves(h.dns, "checkout"+zone, "10.0.0.9", "10.0.0.10")
	})
	h.wantMetric(`coredns_fluid_events_total{type="snapshot"}`, 1)
}

// TestWithoutLeader starts a server that belongs to no cluster yet: it is
// alive, but neither takes writes nor claims that there is nothing.
func TestWithoutLeader(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.agent = h.launchAgent("RAFT_BOOTSTRAP=false")
	h.awaitURL(h.agent, "http://"+h.http+"/healthz")
	for _, tt := range []struct{ method, path, body string }{
		{http.MethodPost, "/v1/apps", `{"appId":"checkout","ip":"10.0.0.9"}`},
		{http.MethodDelete, "/v1/apps/checkout", ""},
		{http.MethodGet, "/v1/services", ""},
		{http.MethodGet, "/v1/services/checkout", ""},
	} {
		began := time.Now()
		code, body := h.call(tt.method, tt.path, tt.body)
		var p problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || code != http.StatusServiceUnavailable || p.Detail == "" {
			t.Errorf("%s %s: got %d %s, want a problem with status 503", tt.method, tt.path, code, body)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("%s %s: took %v, want an answer in a bounded time", tt.method, tt.path, took)
		}
	}
	h.startDNS("startup_timeout 100ms")
	if r := mustAsk(t, h.dns, "checkout"+zone, typeA); r.Rcode != 2 {
		t.Errorf("DNS beside it: got rcode %d, want SERVFAIL", r.Rcode)
	}
}

// TestFluidctlExitCodes runs the real program: as scripts see it.
func TestFluidctlExitCodes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	tests := []struct {
		name string
		args string
		addr string
		code int
		says string
	}{
		{"the original command", "-app checkout -ip 10.0.0.9", h.http, 0, "checkout"},
		{"bad address", "-app checkout -ip 10.0.0.256", h.http, exitFailed, "ip"},
		{"bad name", "register Checkout --ip 10.0.0.9", h.http, exitFailed, "lower-case"},
		{"unknown flag", "register checkout --colour red", h.http, exitUsage, "colour"},
		{"unknown command", "regster checkout", h.http, exitUsage, "regster"},
		{"get of nothing", "get nothing", h.http, exitFailed, "nothing"},
		{"no agent", "list", h.gossip, exitFailed, "FLUID_ADDR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(bin, "fluidctl"), strings.Fields(tt.args)...)
			cmd.Env = h.env("FLUID_ADDR=http://" + tt.addr)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != tt.code || !strings.Contains(string(out), tt.says) {
				t.Errorf("fluidctl %s: got %d %s, want %d with %q", tt.args, got, out, tt.code, tt.says)
			}
		})
	}
}
