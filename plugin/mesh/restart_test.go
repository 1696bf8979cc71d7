package mesh_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// TestRestartBelieved restarts a member that the others hold suspect or dead, and
// lets it join through one that never heard of it: nobody can tell it what is
// said of it, and still all believe at once that it is back.
func TestRestartBelieved(t *testing.T) {
	for _, tc := range []struct {
		name string
		down time.Duration
		held mesh.State // by the others when it comes back
	}{
		{"within the suspicion", 2 * time.Second, mesh.Alive},
		{"dead", 40 * time.Second, mesh.Dead},
		{"dead for long", 10 * time.Minute, mesh.Dead},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newNetWorld(mesh.CRDT, key(1))
				file := filepath.Join(t.TempDir(), "member")
				alone := func(c *mesh.Config) { c.Seeds, c.State = nil, file }
				a := start(t, w, "agent-a", mesh.RoleAgent, alone)
				others := []*node{
					start(t, w, "agent-b", mesh.RoleAgent, noSeeds, a),
					start(t, w, "dns-1", mesh.RoleDNS, noSeeds, a),
					start(t, w, "dns-2", mesh.RoleDNS, noSeeds, a),
				}
				whole(t, append([]*node{a}, others...), 30*time.Second)
				// However often it began, and whatever its clock says.
				for range 3 {
					_ = a.Close()
					a = start(t, w, "agent-a", mesh.RoleAgent, alone, others[0])
					whole(t, append([]*node{a}, others...), 30*time.Second)
				}
				_ = a.Close()
				<-time.After(tc.down)
				for _, n := range others {
					if got := stateOf(n, "agent-a"); got != tc.held {
						t.Fatalf("%s holds it %v, want %v", n.id, got, tc.held)
					}
				}
				fresh := start(t, w, "dns-9", mesh.RoleDNS, noSeeds, others[1])
				a = start(t, w, "agent-a", mesh.RoleAgent, alone, fresh)
				all := append([]*node{a, fresh}, others...)
				whole(t, all, 2*time.Second)
				<-time.After(time.Minute)
				whole(t, all, time.Millisecond) // and it stays so
			})
		})
	}
}

func noSeeds(c *mesh.Config) { c.Seeds = nil }
