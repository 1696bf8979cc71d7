package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

// clientOf returns the configuration of a client that finds its cluster through url.
func clientOf(t *testing.T, name, url string) agent.Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.Node, cfg.Raft.Role, cfg.Raft.JoinURL, cfg.Raft.Bind = name, "client", url, ""
	return cfg
}

// dnsAt connects a DNS server that keeps nothing to the socket of an agent.
func dnsAt(t *testing.T, a *agent.Agent, id string) *sink {
	t.Helper()
	s := &sink{}
	c, err := feed.NewClient(feed.ClientConfig{Socket: a.Socket(), MemberID: id, Name: id}, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// A client holds what the servers agreed on, serves its own DNS server from it,
// takes writes and reads as they do, and is no server.
func TestClient(t *testing.T) {
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	register(t, c1, "checkout", "10.0.0.9")
	a2 := start(t, clientOf(t, "node2", a1.HTTP()))
	c2 := client(t, a2, "")
	leading(t, c2)
	d := dnsAt(t, a2, "dns-2")
	eventually(t, "the DNS server at the client knows", func() bool { return d.has(record.InstanceKey("checkout", "10.0.0.9")) })

	done := register(t, c2, "web", "10.0.0.10")
	s, err := c2.Service(t.Context(), "web", api.Filter{})
	if err != nil || len(s.Instances) != 1 || s.Index != done.Index {
		t.Errorf("web at once after its registration: %+v, %v", s, err)
	}
	wrong := uint64(1)
	if _, err := c2.Deregister(t.Context(), "web", &api.WriteOptions{IfMatch: &wrong}); !errors.Is(err, store.ErrPrecondition) {
		t.Errorf("If-Match: got %v", err)
	}
	if got := status(t, a2.HTTP()+"/v1/services/web?consistency=linearizable"); got != http.StatusOK {
		t.Errorf("linearizable read: got %d", got)
	}

	// The roster holds the DNS server of the client, who answers for it.
	opt := &api.WriteOptions{Wait: "everywhere", Timeout: "10s"}
	eventually(t, "it is on the roster", func() bool {
		ms, err := c1.Members(t.Context())
		for _, m := range ms {
			if m.ID == "dns-2" && m.State == "alive" && m.Host == "node2" && m.AppliedIndex > 0 {
				return true
			}
		}
		return err != nil
	})
	for i, c := range []*api.Client{c1, c2} {
		rs, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: []string{"10.1.0.1", "10.1.0.2"}[i]}}}, opt)
		if err != nil || rs[0].Spread == nil || !rs[0].Everywhere || !d.has(record.InstanceKey("web", rs[0].ID)) {
			t.Errorf("everywhere through agent %d: got %+v, %v", i+1, rs, err)
		}
	}

	r, err := c2.Raft(t.Context())
	if err != nil || r.State != "client" || r.Leader.Name != "node1" || r.Follows != a1.HTTP() || len(r.Servers) != 1 || r.Term == 0 {
		t.Errorf("raft at the client: %+v, %v", r, err)
	}
	h, err := c2.Ready(t.Context())
	if err != nil || h.Status != "ready" || !strings.HasPrefix(h.Checks["role"], "client, follows "+a1.HTTP()) {
		t.Errorf("ready at the client: %+v, %v", h, err)
	}
	for base, want := range map[string][]string{
		a1.HTTP(): {`fluid_role{role="server"} 1`, "fluid_followers 1"},
		a2.HTTP(): {`fluid_role{role="client"} 1`, "fluid_follows_server 1", "fluid_follow_snapshots_total 1", "fluid_is_leader 0"},
	} {
		text := body(t, base+"/metrics")
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("metrics of %s lack %s", base, w)
			}
		}
	}

	// What only a server has comes from one.
	b, err := c2.SaveSnapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := api.InspectSnapshot(strings.NewReader(string(b))); err != nil || info.Instances == 0 || info.ClusterID != r.ClusterID {
		t.Errorf("snapshot through the client: %+v, %v", info, err)
	}
	if _, err := c2.RestoreSnapshot(t.Context(), b, 0); err != nil {
		t.Errorf("restore through the client: %v", err)
	}
	eventually(t, "the client is in the next generation", func() bool {
		r2, err := c2.Raft(t.Context())
		return err == nil && r2.Generation > r.Generation && r2.AppliedIndex > 0
	})
}

// A client that loses every server goes on answering, also over a restart, and
// refuses writes in bounded time; then it finds the servers again.
func TestClientAlone(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.HTTPBind = freeAddr(t) // it comes back there
	a1 := start(t, cfg)
	c1 := client(t, a1, "")
	leading(t, c1)
	register(t, c1, "checkout", "10.0.0.9")
	mine := clientOf(t, "node2", a1.HTTP())
	a2 := start(t, mine)
	c2 := client(t, a2, "")
	leading(t, c2)
	stop(t, a1)

	eventually(t, "writes are refused", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		_, err := c2.Deregister(ctx, "checkout", nil)
		var e *api.Error
		if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || e.RetryAfter == 0 {
			t.Fatalf("write while alone: got %v", err)
		}
		// The first one may be on a connection that the server closes just then.
		return !errors.Is(err, store.ErrUnknown) && errors.Is(err, store.ErrUnavailable)
	})
	if r, err := c2.Raft(t.Context()); err != nil || r.Leader.ID != "" || r.Follows != "" || len(r.Servers) != 1 {
		t.Errorf("raft while alone: got %+v, %v", r, err)
	}
	for round := range 2 {
		s, err := c2.Service(t.Context(), "checkout", api.Filter{})
		if err != nil || len(s.Instances) != 1 {
			t.Errorf("alone: got %+v, %v", s, err)
		}
		d := dnsAt(t, a2, fmt.Sprintf("dns-%d", round)) // that of the last round is connected again, too
		eventually(t, "its DNS server knows", func() bool { return d.has(record.InstanceKey("checkout", "10.0.0.9")) })
		stop(t, a2)
		a2 = start(t, mine)
		c2 = client(t, a2, "")
	}
	start(t, cfg)
	leading(t, c2)
	register(t, c2, "web", "10.0.0.10")
}

// A client follows another server when the one it follows is gone, and writes
// go on where a leader is.
func TestClientTurns(t *testing.T) {
	t.Parallel()
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	servers := map[string]*agent.Agent{a1.HTTP(): a1}
	for _, name := range []string{"node2", "node3"} {
		a, _ := joined(t, name, a1.HTTP())
		servers[a.HTTP()] = a
	}
	eventually(t, "three voters", func() bool {
		r, err := c1.Raft(t.Context())
		voters := 0
		for _, s := range r.Servers {
			if s.Suffrage == "voter" {
				voters++
			}
		}
		return err == nil && voters == 3
	})
	a4 := start(t, clientOf(t, "node4", a1.HTTP()))
	c4 := client(t, a4, "")
	leading(t, c4)
	register(t, c4, "web", "10.0.0.1")
	r, err := c4.Raft(t.Context())
	if err != nil || servers[r.Follows] == nil {
		t.Fatalf("got %+v, %v", r, err)
	}
	stop(t, servers[r.Follows])
	eventually(t, "it follows another one", func() bool {
		now, err := c4.Raft(t.Context())
		return err == nil && now.Follows != "" && now.Follows != r.Follows && now.Leader.ID != ""
	})
	register(t, c4, "web", "10.0.0.2")
	if s, err := c4.Service(t.Context(), "web", api.Filter{}); err != nil || len(s.Instances) != 2 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// A server that knows no leader is left for one that does.
func TestClientLeavesMinority(t *testing.T) {
	a1 := start(t, testConfig(t))
	leading(t, client(t, a1, ""))
	u, err := url.Parse(a1.HTTP())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	followed := make(chan struct{}, 100)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.URL.Path == api.FollowPath {
			followed <- struct{}{}
			return nil
		}
		b, err := io.ReadAll(r.Body)
		b = bytes.ReplaceAll(b, []byte(`"leader":true`), []byte(`"leader":false`))
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		r.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return err
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	c2 := client(t, start(t, clientOf(t, "node2", front.URL)), "")
	select {
	case <-followed:
	case <-time.After(20 * time.Second):
		t.Fatal("the only server known was not followed")
	}
	eventually(t, "it follows the server that knows the leader", func() bool {
		r, err := c2.Raft(t.Context())
		return err == nil && r.Follows == a1.HTTP() && r.Leader.ID != ""
	})
}

// A client asked for its cluster names the servers: any agent will do as
// RAFT_JOIN_URL, for a client and for a server.
func TestJoinThroughClient(t *testing.T) {
	a1 := start(t, testConfig(t))
	leading(t, client(t, a1, ""))
	a2 := start(t, clientOf(t, "node2", a1.HTTP()))
	leading(t, client(t, a2, ""))
	a3 := start(t, clientOf(t, "node3", a2.HTTP()))
	c3 := client(t, a3, "")
	leading(t, c3)
	if r, err := c3.Raft(t.Context()); err != nil || r.Follows != a1.HTTP() {
		t.Errorf("node3: got %+v, %v", r, err)
	}
	_, c4 := joined(t, "node4", a2.HTTP())
	if r, err := c4.Raft(t.Context()); err != nil || len(r.Servers) != 2 {
		t.Errorf("node4: got %+v, %v", r, err)
	}
}

// Clients and servers prove who they are to one another as servers do.
func TestClientSecret(t *testing.T) {
	cfg := testConfig(t)
	cfg.Raft.JoinSecret, cfg.Token = "together", "operator"
	a1 := start(t, cfg)
	leading(t, client(t, a1, "operator"))
	wrong := clientOf(t, "node2", a1.HTTP())
	wrong.Raft.JoinSecret = "apart"
	c2 := client(t, start(t, wrong), "")
	eventually(t, "it says why", func() bool {
		h, err := c2.Ready(t.Context())
		return err == nil && h.Status == "not ready" && strings.Contains(strings.Join(h.Reasons, ";"), "join secret")
	})
	right := clientOf(t, "node3", a1.HTTP())
	right.Raft.JoinSecret = "together"
	c3 := client(t, start(t, right), "")
	leading(t, c3)
	register(t, c3, "web", "10.0.0.1")
}

// A client of one cluster does not become one of another.
func TestClientOtherCluster(t *testing.T) {
	a1, a2 := start(t, testConfig(t)), start(t, testConfig(t))
	leading(t, client(t, a1, ""))
	leading(t, client(t, a2, ""))
	mine := clientOf(t, "node2", a1.HTTP())
	a3 := start(t, mine)
	leading(t, client(t, a3, ""))
	stop(t, a3)
	stop(t, a1)
	mine.Raft.JoinURL = a2.HTTP()
	a3 = start(t, mine)
	endsAsOther(t, a3)
}

// A DNS server at a client that died is named: nobody vouches for it.
func TestClientDies(t *testing.T) {
	t.Parallel()
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	a2 := start(t, clientOf(t, "node2", a1.HTTP()))
	leading(t, client(t, a2, ""))
	dnsAt(t, a2, "dns-2")
	lagging := func(timeout string) []string {
		rs, err := c1.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1"}}}, &api.WriteOptions{Wait: "everywhere", Timeout: timeout})
		if err != nil || rs[0].Spread == nil {
			t.Fatalf("got %+v, %v", rs, err)
		}
		return rs[0].Lagging
	}
	eventually(t, "it is on the roster", func() bool {
		ms, err := c1.Members(t.Context())
		return err == nil && slices.ContainsFunc(ms, func(m api.Member) bool { return m.ID == "dns-2" && m.Host == "node2" })
	})
	if got := lagging("10s"); len(got) != 0 {
		t.Errorf("while it is there: got %v", got)
	}
	stop(t, a2)
	register(t, c1, "web", "10.0.0.2")
	eventually(t, "it is unreachable", func() bool {
		rs, err := c1.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.2"}}}, &api.WriteOptions{Wait: "everywhere", Timeout: "100ms"})
		return err == nil && !rs[0].Everywhere && slices.Equal(rs[0].Lagging, []string{"dns-2 (unreachable)"})
	})
}

// freeAddr returns a loopback address on which nothing listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func status(t *testing.T, url string) int {
	t.Helper()
	code, _ := get(t, url)
	return code
}

func body(t *testing.T, url string) string {
	t.Helper()
	_, b := get(t, url)
	return b
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
