package agenttest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refusedWrite makes a write that must be refused, and in bounded time.
func (h *host) refusedWrite(app string) {
	h.t.Helper()
	const bound = 8 * time.Second // the agent gives up after 5 s
	began := time.Now()
	code, body := h.call(http.MethodPost, "/v1/apps", fmt.Sprintf(`{"appId":%q,"ip":"10.0.0.250"}`, app))
	if took := time.Since(began); code != http.StatusServiceUnavailable || took > bound {
		h.t.Errorf("write without a server: got %d %s after %v, want 503 within %v", code, body, took, bound)
	}
}

// TestClient has a server and a client on two hosts. What is registered at the
// client is answered on both, right after it says so. While the server is dead,
// both DNS servers and the client's reads go on, also when the client and its
// CoreDNS have started anew meanwhile; writes are refused. Then they work again.
func TestClient(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	a.id, b.id = "a", "b"
	client := []string{"FLUID_RAFT=client", "RAFT_JOIN_URL=http://" + a.http}
	a.startAgent()
	b.startAgent(client...)
	a.startDNS()
	b.startDNS("snapshot " + filepath.Join(b.dir, "last-good"))
	for _, h := range []*host{a, b} {
		h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	}
	if v := b.raftNow(); v.State != "client" || v.Leader.Name != "a" || len(v.Servers) != 1 {
		t.Errorf("raft at the client: got %+v", v)
	}
	for i := range 20 {
		app, ip := fmt.Sprintf("app-%d", i), fmt.Sprintf("10.4.0.%d", i)
		s := []*host{a, b}[i%2].everywhere(http.MethodPost, "/v1/apps?wait=everywhere", fmt.Sprintf(`{"appId":%q,"ip":%q}`, app, ip))
		if !s.Everywhere || len(s.Lagging) > 0 {
			t.Fatalf("register %s: got %+v, want it everywhere", app, s)
		}
		for _, h := range []*host{a, b} {
			if got := h.now(app + zone); len(got) != 1 || got[0] != ip {
				t.Fatalf("%s at %s right after everywhere: got %v, want %s", app, h.id, got, ip)
			}
		}
	}
	b.register("checkout", "10.0.0.9")
	if code, body := b.call(http.MethodGet, "/v1/services/checkout?consistency=linearizable", ""); code != http.StatusOK || !strings.Contains(body, "10.0.0.9") {
		t.Errorf("linearizable read at the client: got %d %s", code, body)
	}

	a.agent.kill()
	answered := func() bool {
		code, body := b.call(http.MethodGet, "/v1/services/checkout", "")
		return code == http.StatusOK && strings.Contains(body, "10.0.0.9") &&
			resolves(a.dns, "checkout"+zone, "10.0.0.9") && resolves(b.dns, "checkout"+zone, "10.0.0.9")
	}
	throughout(t, 2*time.Second, "reads go on without a server", answered)
	b.refusedWrite("late")
	if code, _ := b.call(http.MethodGet, "/v1/services/checkout?consistency=linearizable", ""); code != http.StatusServiceUnavailable {
		t.Errorf("linearizable read without a server: got %d", code)
	}
	b.agent.kill()
	b.agent = b.launchAgent(client...)
	b.awaitURL(b.agent, "http://"+b.http+"/readyz")
	b.coredns.kill()
	b.startDNS() // all it knows comes from the client
	eventually(t, "the client answers from its own disk", answered)

	a.agent = a.launchAgent()
	a.awaitURL(a.agent, "http://"+a.http+"/readyz")
	b.awaitAgent()
	b.register("late", "10.0.0.10")
	eventually(t, "the new registration", func() bool {
		return resolves(a.dns, "late"+zone, "10.0.0.10") && resolves(b.dns, "late"+zone, "10.0.0.10")
	})
}

// TestClientTurns freezes the server that a client follows, which still holds its
// connections: the client follows another one, knows the new leader if the old
// one was frozen, and takes writes; its DNS goes on all the time.
func TestClientTurns(t *testing.T) {
	t.Parallel()
	hosts := newCluster(t)
	d := newHost(t)
	d.id = "d"
	d.startAgent("FLUID_RAFT=client", "RAFT_JOIN_URL=http://"+hosts[0].http)
	d.startDNS()
	d.awaitURL(d.coredns, "http://"+d.ready+"/ready")
	d.register("checkout", "10.0.0.9")
	was := d.raftNow().Follows
	for _, h := range hosts {
		if "http://"+h.http == was {
			h.agent.freeze()
		}
	}
	d.writeOnceItCan("10.0.0.10", time.Now())
	eventually(t, "it follows another server", func() bool {
		now := d.raftNow()
		return now.Follows != "" && now.Follows != was
	})
	eventually(t, "what was written is answered", func() bool { return resolves(d.dns, "outage"+zone, "10.0.0.10") })
	if !resolves(d.dns, "checkout"+zone, "10.0.0.9") {
		t.Error("checkout is not answered")
	}
}

// TestClientOfMesh has a client that is told of gossip alone. What is registered
// there, by either tier, is answered on both hosts, also without the server.
func TestClientOfMesh(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	a.id, b.id = "a", "b"
	a.startAgent("GOSSIP_IMPL=crdt")
	b.startAgent("GOSSIP_IMPL=crdt", "GOSSIP_SEEDS="+a.gossip, "RAFT_BIND=")
	a.startDNS(a.meshed(a.gossip)...)
	b.startDNS(b.meshed(b.gossip)...)
	for _, h := range []*host{a, b} {
		h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	}
	if v := b.raftNow(); v.State != "client" {
		t.Errorf("raft at the client: got %+v", v)
	}
	b.register("checkout", "10.0.0.9")
	b.vouch("web", "10.0.0.1")
	all := func() bool {
		for _, h := range []*host{a, b} {
			if !resolves(h.dns, "checkout"+zone, "10.0.0.9") || !resolves(h.dns, "web"+zone, "10.0.0.1") {
				return false
			}
		}
		return true
	}
	eventually(t, "everything is answered at both", all)
	eventually(t, "a write is known everywhere", func() bool {
		s := b.everywhere(http.MethodPost, "/v1/apps?wait=everywhere", `{"appId":"checkout","ip":"10.0.0.9"}`)
		return s.Everywhere
	})
	a.agent.kill()
	throughout(t, 2*time.Second, "everything is answered without a server", all)
}

// TestBecomesClient has an agent that may choose, and a cluster that wants no
// further server.
func TestBecomesClient(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	a.id, b.id = "a", "b"
	a.startAgent()
	a.register("checkout", "10.0.0.9")
	u, err := url.Parse("http://" + a.http)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/raft/join" {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"type":"urn:fluid:full","detail":"the cluster has enough servers: there are 7"}`)
	}))
	defer front.Close()
	b.agent = b.launchAgent("RAFT_JOIN_URL=" + front.URL)
	b.startDNS()
	b.awaitAgent()
	b.awaitURL(b.coredns, "http://"+b.ready+"/ready")
	eventually(t, "it is a client", func() bool { return b.raftNow().State == "client" })
	if !strings.Contains(b.agent.out.String(), "FLUID_RAFT=server") {
		t.Errorf("the log does not say how to change that:\n%s", b.agent.out)
	}
	eventually(t, "DNS answers", func() bool { return resolves(b.dns, "checkout"+zone, "10.0.0.9") })
	if out := b.mustFluidctl("status"); !strings.Contains(out, "client, follows http://") {
		t.Errorf("fluidctl status: got %s", out)
	}
}
