package agent_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// rival is an agent's member of the mesh that does what the test wants it to.
type rival struct {
	mesh.Mesh
	replica
}

// newRival joins a mesh as an agent that writes an origin, which holds an
// instance.
func newRival(t *testing.T, c *api.Client, name string, origin record.OriginID, epoch uint64, service, ip, seed string) *rival {
	t.Helper()
	r := &rival{replica: replica{cat: catalog.New()}}
	var err error
	r.Update(func(cat *catalog.Catalog) catalog.Changes {
		now := time.Now().UnixMilli()
		ow, ch, oerr := cat.Own(now, origin, epoch, 1, nil)
		if oerr != nil {
			err = oerr
			return ch
		}
		node, _ := ow.Describe(now, &record.Node{ID: "agent-" + name, Name: name})
		in := record.Instance{Service: service, Addrs: []netip.Addr{netip.MustParseAddr(ip)}, Node: name, Weight: 1}
		in.Normalize()
		it, _, rerr := ow.Register(now, &in)
		err = errors.Join(rerr, in.Validate())
		ow.Commit(now, node, it)
		return ch
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Raft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.Mesh, err = mesh.New(mesh.Config{
		Impl: mesh.CRDT, ID: "agent-" + name, Name: name, Role: mesh.RoleAgent, Replica: r, Cluster: info.ClusterID, Bind: "127.0.0.1:0", Seeds: []string{seed},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if _, err := r.Join(t.Context(), []string{seed}); err != nil {
		t.Fatal(err)
	}
	return r
}

// originOf returns the origin of a node, as an agent lists it.
func originOf(t *testing.T, c *api.Client, node string) (found api.Node, ok bool) {
	t.Helper()
	list, err := c.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(n api.Node) bool { return n.Name == node })
	if i < 0 {
		return api.Node{}, false
	}
	return list[i], true
}

// answered returns the addresses that an agent answers for a service.
func answered(t *testing.T, c *api.Client, service string) (out []string) {
	t.Helper()
	s, err := c.Service(t.Context(), service, api.Filter{})
	if err != nil {
		return nil
	}
	for _, in := range s.Instances {
		if in.Answered {
			out = append(out, in.IPs...)
		}
	}
	slices.Sort(out)
	return out
}

// The leader drops what a node that is dead for long registered, and takes it
// back from one that returns; not all nodes at once.
func TestReap(t *testing.T) {
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.ReapAfter = "crdt", "127.0.0.1:0", time.Second
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	seed := gossipAddress(t, c)
	epoch := uint64(time.Now().UnixMilli())
	one := newRival(t, c, "one", record.OriginID{1}, epoch, "web", "10.0.0.1", seed)
	two := newRival(t, c, "two", record.OriginID{2}, epoch, "web", "10.0.0.2", seed)
	eventually(t, "both registrations", func() bool { return len(answered(t, c, "web")) == 2 })
	for _, r := range []*rival{one, two} { // who leaves is dead at once
		if err := r.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "one of two reaped", func() bool { return metric(t, a, "fluid_gossip_reaped_origins_total") == "1" })
	var left int
	eventually(t, "the origin dropped", func() bool {
		left = 0
		for _, name := range []string{"one", "two"} {
			if _, ok := originOf(t, c, name); ok {
				left++
			}
		}
		return left == 1
	})
	if !testing.Short() {
		<-time.After(2500 * time.Millisecond) // two more looks
	}
	if n := metric(t, a, "fluid_gossip_reaped_origins_total"); n != "1" {
		t.Errorf("reaped %s in one hour, of 3 origins", n)
	}

	// What was reaped comes back in a new epoch only.
	gone, id := "one", record.OriginID{1}
	if _, ok := originOf(t, c, "one"); ok {
		gone, id = "two", record.OriginID{2}
	}
	again := newRival(t, c, gone, id, epoch+100_000, "web", "10.0.0.3", seed)
	eventually(t, "the return", func() bool { return slices.Equal(answered(t, c, "web"), []string{"10.0.0.3"}) })
	_ = again.Close()
}

// A second writer of the agent's own origin, as a copied data directory makes
// one, leaves the agent with a new origin and all that it registered.
func TestClonedOrigin(t *testing.T) {
	cfg, a, c, seed := inMesh(t)
	if status, text := put(t, a, "PUT", "/v1/services/cache/instances/10.0.0.5", `{"ip":"10.0.0.5"}`); status != 201 {
		t.Fatal(text)
	}
	own, ok := originOf(t, c, "node1")
	if !ok {
		t.Fatal("the agent does not list itself")
	}
	id, err := record.ParseOriginID(own.Origin)
	if err != nil {
		t.Fatal(err)
	}
	newRival(t, c, "copy", id, own.Epoch+10, "cache", "10.0.0.6", seed)
	eventually(t, "a new origin", func() bool {
		n, ok := originOf(t, c, "node1")
		return ok && n.Origin != own.Origin && n.Self
	})
	if got := answered(t, c, "cache"); !slices.Contains(got, "10.0.0.5") {
		t.Errorf("after the change the agent answers %v", got)
	}
	stop(t, a)
	a = start(t, cfg)
	c = client(t, a, "")
	leading(t, c)
	if n, ok := originOf(t, c, "node1"); !ok || n.Origin == own.Origin {
		t.Errorf("after a restart: %+v", n)
	}
	if got := answered(t, c, "cache"); !slices.Contains(got, "10.0.0.5") {
		t.Errorf("after a restart the agent answers %v", got)
	}
}

// An agent whose origin was reaped while it was away goes on under another.
func TestReapedAndBack(t *testing.T) {
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind, cfg.Gossip.ReapAfter = "crdt", "127.0.0.1:0", time.Second
	a1 := start(t, cfg)
	c1 := client(t, a1, "")
	leading(t, c1)
	seed := gossipAddress(t, c1)
	a2, c2 := joined(t, "node2", a1.HTTP(), func(c *agent.Config) {
		c.Gossip.Impl, c.Gossip.Bind, c.Gossip.Seeds = "crdt", "127.0.0.1:0", []string{seed}
	})
	eventually(t, "the registration", func() bool {
		status, _ := put(t, a2, "PUT", "/v1/services/cache/instances/10.0.0.5?ack=mesh:1", `{"ip":"10.0.0.5"}`)
		return status < 300
	})
	old, _ := originOf(t, c2, "node2")
	if err := c2.LeaveMesh(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reap", func() bool { return metric(t, a1, "fluid_gossip_reaped_origins_total") == "1" })
	eventually(t, "another origin", func() bool {
		n, ok := originOf(t, c2, "node2")
		return ok && n.Self && n.Origin != old.Origin
	})
	if status, text := put(t, a2, "PUT", "/v1/services/cache/instances/10.0.0.6", `{"ip":"10.0.0.6"}`); status != 201 {
		t.Errorf("a registration under it: %d %s", status, text)
	}
	if n, err := c2.JoinMesh(t.Context(), []string{seed}); err != nil || n == 0 {
		t.Fatalf("join: %d, %v", n, err)
	}
	eventually(t, "both in the answer", func() bool { return slices.Equal(answered(t, c1, "cache"), []string{"10.0.0.5", "10.0.0.6"}) })
}
