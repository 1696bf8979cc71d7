package mesh_test

import (
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// TestPropagation measures, in a mesh at rest, how long changes would take.
func TestPropagation(t *testing.T) {
	for _, impl := range []mesh.Impl{mesh.CRDT, mesh.Memberlist} {
		t.Run(string(impl), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, b, d := group(t, newNetWorld(impl, key(1)))
				for _, n := range []*node{a, b, d} {
					eventually(t, 3*time.Minute, n.id+" heard no beacon", func() bool { return n.Stats().Propagation.Count > 1 })
					if p := n.Stats().Propagation; p.Sum/float64(p.Count) > 1 {
						t.Errorf("%s: %d beacons were %.1f s under way", n.id, p.Count, p.Sum)
					}
				}
			})
		})
	}
}
