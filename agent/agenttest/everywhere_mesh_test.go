package agenttest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestEverywhereInMesh: a CoreDNS without an agent, which has everything from
// the mesh, counts as much as any other for what is applied everywhere.
func TestEverywhereInMesh(t *testing.T) {
	t.Parallel()
	a, c := newHost(t), newHost(t)
	a.id, c.id = "a", "c"
	a.startAgent("GOSSIP_IMPL=crdt")
	a.startDNS(a.meshed(a.gossip)...)
	options := c.meshed(a.gossip, "cluster "+a.clusterID(), "snapshot "+c.dir+"/last.good")
	c.startDNS(options...)
	for _, h := range []*host{a, c} {
		h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	}
	a.register("checkout", "10.0.0.9")
	write := func(ip, timeout string) spread {
		t.Helper()
		return a.everywhere(http.MethodPost, "/v1/apps?wait=everywhere&timeout="+timeout, fmt.Sprintf(`{"appId":"checkout","ip":%q}`, ip))
	}
	eventually(t, "both are on the roster", func() bool {
		_, members := a.call(http.MethodGet, "/v1/members", "")
		s := write("10.0.0.9", "5s")
		return s.Everywhere && strings.Count(members, `"role":"dns"`) == 2
	})

	for i := range 10 {
		ip := fmt.Sprintf("10.3.0.%d", i)
		name := fmt.Sprintf("now-%d", i)
		s := a.everywhere(http.MethodPost, "/v1/apps?wait=everywhere", fmt.Sprintf(`{"appId":%q,"ip":%q}`, name, ip))
		if got := c.now(name + zone); !s.Everywhere || !slices.Equal(got, []string{ip}) {
			t.Fatalf("%s right after everywhere %+v: got %v, want %s", name, s, got, ip)
		}
		s = a.everywhere(http.MethodDelete, "/v1/apps/"+name+"/instances/"+ip+"?wait=everywhere", "")
		if got := c.now(name + zone); !s.Everywhere || len(got) != 0 || s.ClientTTL == "0s" {
			t.Fatalf("%s right after its removal was everywhere %+v: got %v, want none", name, s, got)
		}
	}

	lagging := func(what, ip, want string) {
		t.Helper()
		if s := write(ip, "500ms"); s.Everywhere || len(s.Lagging) != 1 || !strings.HasPrefix(s.Lagging[0], want) {
			t.Errorf("%s: got %+v, want everywhere false and one that lags, %q", what, s, want)
		}
	}
	c.coredns.freeze()
	lagging("frozen", "10.0.0.10", "c-dns")
	if err := c.coredns.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is awake again", func() bool { return write("10.0.0.11", "5s").Everywhere })
	if got, want := c.now("checkout"+zone), []string{"10.0.0.10", "10.0.0.11", "10.0.0.9"}; !slices.Equal(got, want) {
		t.Errorf("awake again: got %v, want %v", got, want)
	}
	c.coredns.kill()
	lagging("killed", "10.0.0.12", "c-dns")

	// The same server again, which then stops as it should: it leaves.
	c.startDNS(options...)
	eventually(t, "it is back", func() bool { return write("10.0.0.13", "5s").Everywhere })
	if err := c.coredns.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.coredns.ended()
	eventually(t, "it is not waited for", func() bool { return write("10.0.0.14", "200ms").Everywhere })
}
