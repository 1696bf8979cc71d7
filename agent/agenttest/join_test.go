package agenttest

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fluidctl runs fluidctl at the host's agent and returns what it printed, and
// whether it succeeded.
func (h *host) fluidctl(args ...string) (string, bool) {
	h.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "fluidctl"), args...)
	cmd.Env = h.env()
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// mustFluidctl is fluidctl for what has to succeed.
func (h *host) mustFluidctl(args ...string) string {
	h.t.Helper()
	out, ok := h.fluidctl(args...)
	if !ok {
		h.t.Fatalf("fluidctl %s: %s", strings.Join(args, " "), out)
	}
	return out
}

// TestJoinByHand takes an agent that was told of no cluster into one. An agent
// that has formed a cluster of its own is refused, and doctor tells the two
// clusters apart.
func TestJoinByHand(t *testing.T) {
	t.Parallel()
	a, b, other := newHost(t), newHost(t), newHost(t)
	b.id, other.id = "b", "other"
	a.startAgent()
	a.register("checkout", "10.0.0.9")
	b.agent = b.launchAgent("RAFT_BOOTSTRAP=false")
	eventually(t, "b waits for somebody", func() bool {
		code, body := b.call(http.MethodGet, "/readyz", "")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "not part of a cluster")
	})
	b.mustFluidctl("raft", "join", "http://"+a.http)
	b.awaitURL(b.agent, "http://"+b.http+"/readyz")
	eventually(t, "b has what a has", func() bool {
		out, ok := b.fluidctl("get", "checkout")
		return ok && strings.Contains(out, "10.0.0.9")
	})
	b.mustFluidctl("raft", "join", "http://"+a.http) // changes nothing
	out, _ := a.fluidctl("doctor")
	if !strings.Contains(out, "clocks") || !strings.Contains(out, "those of 2 servers agree") {
		t.Errorf("doctor: got %s", out)
	}

	other.startAgent()
	if out, ok := other.fluidctl("raft", "join", "http://"+a.http); ok || !strings.Contains(out, "state of another cluster") && !strings.Contains(out, "fluid-agent reset") {
		t.Errorf("join of another cluster's server: got %v, %s", ok, out)
	}
	// Where a server of a used to be, an agent of another cluster answers.
	b.agent.kill()
	other.agent.kill()
	other.http = b.http
	other.startAgent()
	if out, ok := a.fluidctl("doctor"); ok || !strings.Contains(out, "is of cluster ") {
		t.Errorf("doctor with an agent of another cluster: got %v, %s", ok, out)
	}
}
