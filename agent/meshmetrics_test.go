package agent_test

import (
	"strings"
	"testing"
)

func TestMeshMetrics(t *testing.T) {
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind = "crdt", "127.0.0.1:0"
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	gossipAddress(t, c)
	eventually(t, "the agent as a member, with its node and position", func() bool {
		list, err := c.Members(t.Context())
		return err == nil && len(list) == 1 && list[0].Host == "node1" && list[0].AppliedIndex > 0
	})
	var text string
	eventually(t, "the node in the metrics", func() bool {
		_, text = put(t, a, "GET", "/metrics", "")
		return strings.Contains(text, `fluid_origins{state="attended"} 1`)
	})
	for _, want := range []string{
		"fluid_conflicts_total 0", `fluid_mesh_members{state="alive"} 1`, `fluid_mesh_members{state="dead"} 0`,
		`fluid_mesh_frames_total{direction="out"}`, `fluid_mesh_bytes_total{direction="in"}`, "fluid_mesh_pulls_total", "fluid_mesh_resets_total",
		"fluid_mesh_mismatches_total 0", "fluid_mesh_repairs_total 0", `fluid_mesh_propagation_seconds_bucket{le="0.3"} 0`, "fluid_mesh_propagation_seconds_count 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
