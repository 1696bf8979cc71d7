package agent_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// lone is a DNS member without an agent that says what the test wants it to.
type lone struct {
	mesh.Mesh
	replica
}

func newLone(t *testing.T, c *api.Client, id, bind string, seeds ...string) *lone {
	t.Helper()
	r, err := c.Raft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &lone{replica: replica{cat: catalog.New()}}
	l.Mesh, err = mesh.New(mesh.Config{
		Impl: mesh.CRDT, ID: id, Name: id + "-name", Role: mesh.RoleDNS, Replica: l, Cluster: r.ClusterID, Bind: bind, Seeds: seeds,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if _, err := l.Join(t.Context(), seeds); err != nil {
		t.Fatal(err)
	}
	return l
}

// position returns how far the member's catalog is.
func (l *lone) position() record.Position {
	_, pos := l.answers("")
	return pos
}

// say reports a position, once it is in the catalog.
func (l *lone) say(t *testing.T, id string, pos record.Position, ttl time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v at %s", pos, id), func() bool { return !l.position().Before(pos) })
	l.Report([]mesh.Report{{ID: id, Applied: pos, TTL: ttl}})
}

// find returns a member as an agent lists it.
func find(t *testing.T, c *api.Client, id string) (found api.Member, ok bool) {
	t.Helper()
	list, err := c.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(m api.Member) bool { return m.ID == id })
	if i < 0 {
		return api.Member{}, false
	}
	return list[i], true
}

// A DNS member without an agent counts: it gets on the roster by being in the
// mesh, its word goes through the mesh, and only by leaving it gets off.
func TestEverywhereInMesh(t *testing.T) {
	_, a1, c1, seed := inMesh(t)
	_, c2 := joined(t, "node2", a1.HTTP(), func(c *agent.Config) {
		c.Gossip.Impl, c.Gossip.Bind, c.Gossip.Seeds = "crdt", "127.0.0.1:0", []string{seed}
	})
	register(t, c1, "before", "10.0.0.1")
	dns := newLone(t, c1, "dns-lone", "127.0.0.1:0", seed)
	for _, c := range []*api.Client{c1, c2} {
		eventually(t, "the lone member to count", func() bool {
			r, err := c.Register(t.Context(), []api.App{{AppID: "probe", Target: api.Target{IP: "10.0.0.1"}}}, &api.WriteOptions{Wait: "everywhere", Timeout: "50ms"})
			return err == nil && slices.Equal(r[0].Lagging, []string{"dns-lone-name"})
		})
	}
	write := func(c *api.Client, ip, timeout string) api.Registered {
		t.Helper()
		r, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: ip}}}, &api.WriteOptions{Wait: "everywhere", Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		return r[0]
	}
	for i, c := range []*api.Client{c1, c2} {
		done := make(chan api.Registered)
		go func() { done <- write(c, fmt.Sprintf("10.0.1.%d", i), "20s") }()
		eventually(t, "the instance at the lone member", func() bool { n, _ := dns.answers("web"); return n == i+1 })
		select {
		case r := <-done:
			t.Fatalf("before it said so: %+v", r.Spread)
		case <-time.After(50 * time.Millisecond):
		}
		dns.say(t, "dns-lone", dns.position(), 7*time.Second)
		if r := <-done; !r.Everywhere || r.ClientTTL != "7s" {
			t.Errorf("got %+v, want everywhere and a TTL of 7s", r.Spread)
		}
	}
	if m, ok := find(t, c2, "dns-lone"); !ok || m.AppliedIndex == 0 || m.State != "alive" || m.Role != "dns" {
		t.Errorf("in the list: %+v", m)
	}

	// What nobody can have applied is no answer, and counted.
	dns.Report([]mesh.Report{{ID: "dns-lone", Applied: record.Position{Generation: 1, Index: 1 << 40}}})
	if r := write(c1, "10.0.2.1", "300ms"); r.Everywhere || !slices.Equal(r.Lagging, []string{"dns-lone-name"}) {
		t.Errorf("with a position from the future: %+v", r.Spread)
	}
	if n := metric(t, a1, "fluid_gossip_bad_acks_total"); n != "1" {
		t.Errorf("%s bad positions counted", n)
	}

	// Gone without a word, it may still answer from memory somewhere.
	dns.say(t, "dns-lone", dns.position(), 0)
	at := dns.Self().Addr
	if err := dns.Close(); err != nil {
		t.Fatal(err)
	}
	if r := write(c1, "10.0.2.2", "300ms"); r.Everywhere {
		t.Errorf("after its death: %+v", r.Spread)
	}
	dns = newLone(t, c1, "dns-lone", at, seed)
	register(t, c1, "web", "10.0.2.3")
	eventually(t, "the new instance", func() bool { n, _ := dns.answers("web"); return n == 5 })
	dns.say(t, "dns-lone", dns.position(), 0)
	if err := dns.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its name off the roster", func() bool { return write(c2, "10.0.2.4", "100ms").Everywhere })
}

// A DNS member that is dead for gossip_reap_after is not waited for any more.
func TestRosterReap(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for a death")
	}
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.ReapAfter = "crdt", "127.0.0.1:0", time.Second
	c := client(t, start(t, cfg), "")
	leading(t, c)
	dns := newLone(t, c, "dns-lone", "127.0.0.1:0", gossipAddress(t, c))
	lagging := func() []string {
		r, err := c.Register(t.Context(), []api.App{{AppID: "web", Target: api.Target{IP: "10.0.0.1"}}}, &api.WriteOptions{Wait: "everywhere", Timeout: "50ms"})
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Lagging
	}
	eventually(t, "the member on the roster", func() bool {
		_, ok := find(t, c, "dns-lone")
		return ok && slices.Equal(lagging(), []string{"dns-lone-name"})
	})
	if err := dns.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its death", func() bool { return slices.Equal(lagging(), []string{"dns-lone-name (unreachable)"}) })
	eventually(t, "its name off the roster", func() bool { return len(lagging()) == 0 })
}
