package agenttest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// TestReportedSurvivesKill kills CoreDNS the moment it has reported a write as
// applied. From its snapshot, with the agent frozen, it must serve that write:
// it never serves below what it reported.
func TestReportedSurvivesKill(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	snapshot := "snapshot " + filepath.Join(h.dir, "last-good")
	h.startAgent()
	h.startDNS(snapshot)
	for i := range 10 {
		ip := fmt.Sprintf("10.4.0.%d", i)
		eventually(t, "a write is everywhere", func() bool {
			return h.everywhere(http.MethodPost, "/v1/apps?wait=everywhere", fmt.Sprintf(`{"appId":"clock","id":"only","ip":%q}`, ip)).Everywhere
		})
		h.agent.freeze()
		h.coredns.kill()
		h.startDNS(snapshot)
		if got := h.now("clock" + zone); !slices.Equal(got, []string{ip}) {
			t.Errorf("from disk: got %v, want %s, which was reported as applied", got, ip)
		}
		if err := h.agent.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOldDataDirectory puts an old copy of the data directory in place of the
// current one, as a careless restore does: the same cluster and generation,
// another history. DNS does not go back while the agent is behind, and ends up
// with what the agent has once that is ahead.
func TestOldDataDirectory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	data, old := filepath.Join(h.dir, "data"), filepath.Join(h.dir, "old")
	h.startAgent()
	h.register("kept", "10.0.0.1")
	h.agent.kill()
	if err := os.CopyFS(old, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	h.startAgent()
	h.startDNS()
	for i := range 10 {
		h.register("lost", fmt.Sprintf("10.0.1.%d", i))
	}
	eventually(t, "all is answered", func() bool { return len(h.now("lost"+zone)) == 10 })

	h.agent.kill()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, data); err != nil {
		t.Fatal(err)
	}
	h.agent = h.launchAgent()
	eventually(t, "the agent says that it is behind", func() bool {
		v, ok := h.metricOf(`coredns_fluid_events_total{type="behind"}`)
		return ok && v == 1
	})
	if got := h.now("lost" + zone); len(got) != 10 {
		t.Errorf("while the agent is behind: got %v, want what was answered before", got)
	}
	h.awaitAgent()
	for i := range 30 {
		h.register("new", fmt.Sprintf("10.0.2.%d", i))
	}
	eventually(t, "DNS has what the agent has", func() bool {
		r, err := ask(h.dns, "lost"+zone, typeA)
		return err == nil && r.Rcode == dns.RcodeNameError && len(h.now("new"+zone)) == 30 && resolves(h.dns, "kept"+zone, "10.0.0.1")
	})
}
