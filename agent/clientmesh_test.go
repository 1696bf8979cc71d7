package agent_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/record"
)

// An agent that is told of the mesh and nothing else finds a server there, is a
// client of it, and is found as the owner of what it registers.
func TestClientBySeeds(t *testing.T) {
	for _, impl := range []string{"crdt", "memberlist"} {
		t.Run(impl, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Gossip.Impl, cfg.Gossip.Bind = impl, "127.0.0.1:0"
			a1 := start(t, cfg)
			c1 := client(t, a1, "")
			leading(t, c1)
			register(t, c1, "checkout", "10.0.0.9")

			mine := testConfig(t)
			mine.Node, mine.Raft.Bind = "node2", ""
			mine.Gossip.Impl, mine.Gossip.Bind, mine.Gossip.Seeds = impl, "127.0.0.1:0", []string{gossipAddress(t, c1)}
			a2 := start(t, mine)
			c2 := client(t, a2, "")
			leading(t, c2)
			eventually(t, "it follows the server", func() bool {
				r, err := c2.Raft(t.Context())
				return err == nil && r.State == "client" && r.Follows == a1.HTTP()
			})
			register(t, c2, "web", "10.0.0.10")

			if _, err := c2.PutInstance(t.Context(), "batch", api.Target{IP: "10.0.0.11"}, nil); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the server knows what the client vouches for", func() bool {
				s, err := c1.Service(t.Context(), "batch", api.Filter{})
				return err == nil && len(s.Instances) == 1
			})
			if v, err := c1.DeleteInstance(t.Context(), "batch", "10.0.0.11", nil); err != nil || v.Owner != "node2" {
				t.Errorf("removed at the server: got %+v, %v", v, err)
			}
		})
	}
}

// What the cluster's seal proves is taken from the mesh, too, where no server
// can be reached otherwise.
func TestClientAdopts(t *testing.T) {
	cfg := testConfig(t)
	cfg.HTTPAdvertise = "127.0.0.1:1" // what servers are told; nobody is there
	cfg.Gossip.Impl, cfg.Gossip.Bind = "crdt", "127.0.0.1:0"
	cfg.HTTPBind = freeAddr(t)
	start(t, cfg)
	c1, err := api.NewClient("http://"+cfg.HTTPBind, "", &http.Client{Transport: &http.Transport{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c1.Close)
	leading(t, c1)

	u, err := url.Parse("http://" + cfg.HTTPBind)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == api.ReportPath { // all that gets through
			proxy.ServeHTTP(w, r)
			return
		}
		http.Error(w, "closed", http.StatusServiceUnavailable)
	}))
	t.Cleanup(front.Close)
	mine := clientOf(t, "node2", front.URL)
	mine.Gossip.Impl, mine.Gossip.Bind, mine.Gossip.Seeds = "crdt", "127.0.0.1:0", []string{gossipAddress(t, c1)}
	a2 := start(t, mine)
	c2 := client(t, a2, "")
	leading(t, c2)
	d := dnsAt(t, a2, "dns-2")
	for _, ip := range []string{"10.0.0.9", "10.0.0.10"} {
		register(t, c1, "checkout", ip)
		eventually(t, "it came by the mesh", func() bool { return d.has(record.InstanceKey("checkout", ip)) })
	}
	if r, err := c2.Raft(t.Context()); err != nil || r.Follows != "" {
		t.Errorf("got %+v, %v", r, err)
	}
}

// What a client must know to find a server.
func TestClientNeedsAServer(t *testing.T) {
	cfg := testConfig(t)
	cfg.Raft.Bind, cfg.Gossip.Seeds = "", []string{"127.0.0.1:1"} // and no implementation that carries it
	c := client(t, start(t, cfg), "")
	eventually(t, "it says what to set", func() bool {
		h, err := c.Ready(t.Context())
		return err == nil && h.Status == "not ready" && strings.Contains(strings.Join(h.Reasons, ";"), "GOSSIP_IMPL=crdt")
	})
	if _, err := c.Services(t.Context(), api.Filter{}); !errors.Is(err, api.ErrUnsynced) {
		t.Errorf("services: got %v", err)
	}
}
