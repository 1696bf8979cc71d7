package mesh_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

var splitMembers = flag.Int("split.members", 20, "members of the meshes that are cut")

// TestSplits cuts a mesh of real memberlists in two halves, for 20 seconds and
// for 10 minutes, and gives it 30 seconds to be whole again. The library alone
// never heals either.
func TestSplits(t *testing.T) {
	members := *splitMembers
	for _, tc := range []struct {
		impl  mesh.Impl
		split time.Duration
	}{
		{mesh.CRDT, 20 * time.Second}, {mesh.CRDT, 10 * time.Minute}, {mesh.Memberlist, 20 * time.Second},
	} {
		t.Run(fmt.Sprintf("%s %v", tc.impl, tc.split), func(t *testing.T) {
			if testing.Short() && tc.split > time.Minute {
				t.Skip("probes for minutes")
			}
			inBubble(t, func(t *testing.T) {
				w, nodes := crowd(t, tc.impl, members)
				var halves [2][]string
				for i, n := range nodes {
					halves[i%2] = append(halves[i%2], n.id)
				}
				w.cut(halves[0], halves[1])
				<-time.After(tc.split)
				nodes[0].register(t, "web", "even")
				nodes[1].register(t, "web", "odd")
				w.heal()
				healed := time.Now()
				whole(t, nodes, 30*time.Second)
				took := time.Since(healed)
				wantAnswers(t, w, "web", []string{"even", "first", "odd"}, nodes...)
				t.Logf("%d members: whole %v after the heal, the same answers after %v", members, took, time.Since(healed))
			})
		})
	}
}

// TestLoss loses 30 % of all packets for a minute: at the end nobody who lives
// is held dead.
func TestLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("repeats much")
	}
	members := *splitMembers
	inBubble(t, func(t *testing.T) {
		w, nodes := crowd(t, mesh.CRDT, members)
		w.net.SetLoss(0.3)
		<-time.After(time.Minute)
		w.net.SetLoss(0)
		nodes[0].register(t, "web", "after")
		whole(t, nodes, 30*time.Second)
		wantAnswers(t, w, "web", []string{"after", "first"}, nodes...)
	})
}

// crowd starts members that know each other; the first two are agents.
func crowd(t *testing.T, impl mesh.Impl, members int) (*netWorld, []*node) {
	t.Helper()
	w := newNetWorld(impl)
	var nodes []*node
	for i := range members {
		role := mesh.RoleDNS
		if i < 2 {
			role = mesh.RoleAgent
		}
		edit := func(c *mesh.Config) { c.Seeds = c.Seeds[:0] }
		if i == 0 {
			nodes = append(nodes, start(t, w, "m000", role, edit))
			continue
		}
		edit = func(c *mesh.Config) { c.Seeds = []string{nodes[0].Self().Addr} }
		nodes = append(nodes, start(t, w, fmt.Sprintf("m%03d", i), role, edit, nodes[i/2]))
	}
	nodes[0].register(t, "web", "first")
	whole(t, nodes, time.Minute)
	wantAnswers(t, w, "web", []string{"first"}, nodes...)
	return w, nodes
}

// whole waits until everybody holds everybody alive.
func whole(t *testing.T, nodes []*node, within time.Duration) {
	t.Helper()
	eventually(t, within, "the mesh is not whole", func() bool {
		for _, n := range nodes {
			alive := 0
			for _, m := range n.Members() {
				if m.State == mesh.Alive {
					alive++
				}
			}
			if alive != len(nodes) {
				return false
			}
		}
		return true
	})
}
