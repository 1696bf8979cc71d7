package agent_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// replica is a DNS member without an agent: all it knows comes by gossip.
type replica struct {
	mu  sync.Mutex // guards cat
	cat *catalog.Catalog
}

func (r *replica) Update(f func(*catalog.Catalog) catalog.Changes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.cat)
}

func (r *replica) answers(service string) (n int, pos record.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.cat.View(service); ok {
		n = len(s.Instances)
	}
	return n, r.cat.Position()
}

// What is committed reaches members of the mesh that have no agent, and both
// sides see each other.
func TestMesh(t *testing.T) {
	for _, impl := range []string{"crdt", "memberlist"} {
		t.Run(impl, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Gossip.Impl, cfg.Gossip.Bind = impl, "127.0.0.1:0"
			cfg.Gossip.KeyHex = "00112233445566778899aabbccddeeff"
			a := start(t, cfg)
			c := client(t, a, "")
			leading(t, c)
			register(t, c, "before", "10.0.0.1")

			gossipAddr := gossipAddress(t, c)
			r, err := c.Raft(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rep := &replica{cat: catalog.New()}
			m, err := mesh.New(mesh.Config{
				Impl: mesh.Impl(impl), ID: "dns-far", Name: "far", Role: mesh.RoleDNS, Replica: rep, Cluster: r.ClusterID,
				Bind: "127.0.0.1:0", Seeds: []string{gossipAddr}, Keys: [][]byte{{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = m.Close() })
			if _, err := m.Join(t.Context(), []string{gossipAddr}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "what was there before", func() bool { n, _ := rep.answers("before"); return n == 1 })
			register(t, c, "after", "10.0.0.2")
			eventually(t, "what came after", func() bool { n, _ := rep.answers("after"); return n == 1 })
			if _, err := c.CreateOverlay(t.Context(), api.Overlay{Kind: "drain", Service: "before"}, nil); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the drain", func() bool { n, _ := rep.answers("before"); return n == 0 })
			eventually(t, "the far member in the agent's list", func() bool {
				list, err := c.Members(t.Context())
				for _, m := range list {
					if m.ID == "dns-far" && m.State == "alive" && m.Name == "far" {
						return err == nil
					}
				}
				return false
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := m.Leave(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// Two agents of one cluster are in one mesh.
func TestMeshOfServers(t *testing.T) {
	_, a1, c1, seed := inMesh(t)
	_, c2 := joined(t, "node2", a1.HTTP(), func(c *agent.Config) {
		c.Gossip.Impl, c.Gossip.Bind, c.Gossip.Seeds = "crdt", "127.0.0.1:0", []string{seed}
	})
	eventually(t, "both see both", func() bool {
		for _, c := range []*api.Client{c1, c2} {
			list, err := c.Members(t.Context())
			if err != nil || len(list) != 2 || list[0].State != "alive" || list[1].State != "alive" {
				return false
			}
		}
		return true
	})
	register(t, c2, "web", "10.0.0.1")
}

// gossipAddress waits until the only agent is in the mesh and returns where.
func gossipAddress(t *testing.T, c *api.Client) (addr string) {
	t.Helper()
	eventually(t, "the agent in the mesh", func() bool {
		r, err := c.Raft(t.Context())
		list, merr := c.Members(t.Context())
		if err != nil || merr != nil || len(list) != 1 || len(r.Servers) != 1 {
			return false
		}
		addr = list[0].Addr
		return addr != r.Servers[0].Addr
	})
	return addr
}

// A member that had to move is where it moved to after a restart, too: others
// were told to find it there.
func TestMeshStaysWhereItMoved(t *testing.T) {
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", agent.DefaultGossipBind)
	if err != nil {
		taken = nil // somebody else has it
	}
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind = "crdt", ""
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	moved := gossipAddress(t, c)
	if moved == agent.DefaultGossipBind {
		t.Fatalf("the mesh is at %s, which is taken", moved)
	}
	stop(t, a)
	if taken != nil {
		_ = taken.Close()
	}
	c = client(t, start(t, cfg), "")
	leading(t, c)
	if got := gossipAddress(t, c); got != moved {
		t.Errorf("after a restart the mesh is at %s, not %s", got, moved)
	}
}
