package agent_test

import (
	"context"
	"slices"
	"testing"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Everywhere means every DNS server at every agent.
func TestEverywhere(t *testing.T) {
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	a2, c2 := joined(t, "node2", a1.HTTP())
	attach := func(a *agent.Agent, id string, s feed.Sink) (detach func()) {
		fc, err := feed.NewClient(feed.ClientConfig{Socket: a.Socket(), MemberID: id}, s)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = fc.Run(ctx) }()
		detach = func() { cancel(); <-ended }
		t.Cleanup(detach)
		return detach
	}
	one, two := &sink{}, &sink{}
	attach(a1, "dns-1", one)
	detach := attach(a2, "dns-2", two)
	eventually(t, "both on the roster", func() bool {
		list, err := c1.Members(t.Context())
		return err == nil && len(list) == 4
	})

	wait := &api.WriteOptions{Wait: "everywhere", Timeout: "10s"}
	web := []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1"}}}
	done, err := c2.Register(t.Context(), web, wait)
	if err != nil {
		t.Fatal(err)
	}
	if sp := done[0].Spread; sp == nil || !sp.Everywhere || len(sp.Lagging) != 0 {
		t.Errorf("got %+v", sp)
	}
	key := record.InstanceKey("web", "10.0.0.1")
	if !one.has(key) || !two.has(key) {
		t.Error("everywhere, but not in both")
	}

	// A server that is gone may still answer from memory: it lags by name.
	detach()
	placed, err := c1.CreateOverlay(t.Context(), api.Overlay{Kind: "drain", Service: "web"}, &api.WriteOptions{Wait: "everywhere", Timeout: "300ms"})
	if err != nil {
		t.Fatal(err)
	}
	if placed.Everywhere || !slices.Equal(placed.Lagging, []string{"dns-2 (unreachable)"}) {
		t.Errorf("got %+v", placed)
	}
	if list, err := c1.Overlays(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("the write itself: %+v, %v", list, err)
	}

	// It stays on the roster whatever restarts, until an operator forgets it.
	stop(t, a2)
	placed, err = c1.CreateOverlay(t.Context(), api.Overlay{Kind: "allow", Service: "web"}, &api.WriteOptions{Wait: "everywhere", Timeout: "300ms"})
	if err == nil && (placed.Everywhere || !slices.Equal(placed.Lagging, []string{"dns-2 (unreachable)"})) {
		t.Errorf("with its agent gone: got %+v", placed)
	}
}

// The roster outlives agents; forgetting ends it.
func TestRoster(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	attach := func() (detach func()) {
		fc, err := feed.NewClient(feed.ClientConfig{Socket: a.Socket(), MemberID: "dns-1", Name: "host-dns"}, &sink{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = fc.Run(ctx) }()
		return func() { cancel(); <-ended }
	}
	find := func(c *api.Client) (found api.Member) {
		list, err := c.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			if m.ID == "dns-1" {
				found = m
			}
		}
		return found
	}
	eventually(t, "dns-1 on the roster", func() bool {
		detach := attach()
		eventually(t, "dns-1 alive", func() bool { m := find(c); return m.State == "alive" && m.AppliedIndex > 0 })
		r, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.9"}}}, &api.WriteOptions{Wait: "everywhere"})
		if err != nil || !r[0].Spread.Everywhere {
			t.Errorf("everywhere: got %+v, %v", r, err)
		}
		detach()
		eventually(t, "dns-1 gone", func() bool { return find(c).State != "alive" })
		return find(c).Name == "host-dns" // who is gone is listed only if it is on the roster
	})
	stop(t, a)

	c = client(t, start(t, cfg), "")
	leading(t, c)
	if m := find(c); m.Name != "host-dns" || m.State == "alive" {
		t.Errorf("after the restart: got %+v", m)
	}
	r, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1"}}}, &api.WriteOptions{Wait: "everywhere", Timeout: "100ms"})
	if err != nil || r[0].Spread.Everywhere || !slices.Equal(r[0].Lagging, []string{"host-dns (unreachable)"}) {
		t.Errorf("everywhere: got %+v, %v", r[0].Spread, err)
	}
	if err := c.ForgetMember(t.Context(), "dns-1"); err != nil {
		t.Fatal(err)
	}
	r, err = c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.2"}}}, &api.WriteOptions{Wait: "everywhere", Timeout: "100ms"})
	if err != nil || !r[0].Spread.Everywhere {
		t.Errorf("everywhere without it: got %+v, %v", r[0].Spread, err)
	}
}
