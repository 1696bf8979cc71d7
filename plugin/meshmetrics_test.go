package fluid

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMeshMetrics finds the histogram of propagation in what a server with a
// member of the mesh exports.
func TestMeshMetrics(t *testing.T) {
	o := newOther(t, nil)
	o.commit(instance(t, "checkout 10.0.0.9"))
	a := idleAgent(t)
	s := serve(t, corefile(o.options(""), ""), a)
	eventually(t, "the committed instance", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.9") })
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range families {
		got[f.GetName()] = f.GetType().String()
	}
	for name, want := range map[string]string{
		"coredns_fluid_mesh_pulls_total":         "COUNTER",
		"coredns_fluid_mesh_resets_total":        "COUNTER",
		"coredns_fluid_mesh_mismatches_total":    "COUNTER",
		"coredns_fluid_mesh_repairs_total":       "COUNTER",
		"coredns_fluid_mesh_propagation_seconds": "HISTOGRAM",
	} {
		if typ, ok := got[name]; !ok || typ != want {
			t.Errorf("%s: exported %v as %v, want %v", name, ok, typ, want)
		}
	}
}
