package agenttest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runbook returns the commands of a section of ../DESIGN.md, by the host that
// they are for, with the words of replace put in.
func runbook(t *testing.T, section string, replace ...string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "DESIGN.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "### "+section+"\n")
	if !found {
		t.Fatalf("DESIGN.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n#")
	commands := map[string]string{}
	for line := range strings.Lines(rest) {
		host, command, ok := strings.Cut(strings.TrimSpace(line), "$ ")
		if ok && strings.HasPrefix(line, "    ") {
			commands[host] += strings.NewReplacer(replace...).Replace(command) + "\n"
		}
	}
	if len(commands) == 0 {
		t.Fatalf("section %q has no commands", section)
	}
	return commands
}

// shell runs commands of the runbook as the operator of the host would.
func (h *host) shell(commands string) {
	h.t.Helper()
	p := start(h.t, nil, h.env("PATH="+bin+":"+os.Getenv("PATH")), "/bin/sh", "-euc", commands)
	if code := p.ended(); code != 0 {
		h.t.Fatalf("%s: exit code %d: %s", commands, code, p.out)
	}
}

// TestQuorumLost follows the runbook for one server that is left of three: it
// goes on with what it has under the same identity, DNS takes the new
// generation over, and new servers join.
func TestQuorumLost(t *testing.T) {
	t.Parallel()
	hosts := newCluster(t)
	last := hosts[1]
	hosts[0].register("checkout", "10.0.0.9")
	for _, h := range hosts {
		eventually(t, "it is answered at "+h.id, func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })
	}
	for _, h := range hosts {
		h.agent.kill()
	}
	for _, lost := range []*host{hosts[0], hosts[2]} {
		if err := os.RemoveAll(filepath.Join(lost.dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	last.shell(runbook(t, "One server or a few are left", "/var/lib/fluid/node2", filepath.Join(last.dir, "data"), "10.0.0.2:11000", last.raft)["node2"])
	last.startAgent()
	for _, h := range []*host{hosts[0], hosts[2]} {
		h.startAgent("RAFT_JOIN_URL=http://" + last.http)
	}
	hosts[0].register("after", "10.0.0.10")
	for _, h := range hosts {
		eventually(t, "old and new are answered at "+h.id, func() bool {
			return resolves(h.dns, "checkout"+zone, "10.0.0.9") && resolves(h.dns, "after"+zone, "10.0.0.10")
		})
	}
}

// TestTotalLoss follows the runbook for a cluster of which only a copy is left:
// a new one takes the copy's content and identity. DNS servers that outlived
// the loss go over to it, and lose what came after the copy.
func TestTotalLoss(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	copies := filepath.Join(h.dir, "copies")
	setting := []string{"RAFT_SNAPSHOT_COPIES_DIR=" + copies, "RAFT_SNAPSHOT_COPIES_INTERVAL=1h"}
	h.startAgent()
	h.register("checkout", "10.0.0.9")
	h.agent.kill()
	h.startAgent(setting...) // the first start with the setting copies at once
	eventually(t, "a copy", func() bool {
		found, err := filepath.Glob(filepath.Join(copies, "fluid-*.snap"))
		return err == nil && len(found) == 1
	})
	h.startDNS()
	h.register("later", "10.0.0.11")
	eventually(t, "both are answered", func() bool {
		return resolves(h.dns, "checkout"+zone, "10.0.0.9") && resolves(h.dns, "later"+zone, "10.0.0.11")
	})

	h.agent.kill()
	if err := os.RemoveAll(filepath.Join(h.dir, "data")); err != nil {
		t.Fatal(err)
	}
	h.agent = h.launchAgent("RAFT_BOOTSTRAP=true")
	h.awaitURL(h.agent, "http://"+h.http+"/readyz")
	if got := h.now("checkout" + zone); !slices.Equal(got, []string{"10.0.0.9"}) {
		t.Errorf("with a new, empty cluster beside it: got %v, want what DNS knew", got)
	}
	h.shell(runbook(t, "Nothing is left but a copy", "/var/backups/fluid", copies)["node1"])
	eventually(t, "the content of the copy is answered", func() bool {
		return resolves(h.dns, "checkout"+zone, "10.0.0.9") && len(h.now("later"+zone)) == 0
	})
	h.register("after", "10.0.0.12")
	eventually(t, "DNS follows the new cluster", func() bool { return resolves(h.dns, "after"+zone, "10.0.0.12") })
	if out := h.mustFluidctl("get", "checkout"); !strings.Contains(out, "10.0.0.9") {
		t.Errorf("get checkout: got %s", out)
	}
}
