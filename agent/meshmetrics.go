package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// meshCollector reports what this member of the mesh sees, and what the
// catalog took in. Without a mesh it reports the catalog alone.
type meshCollector struct{ a *Agent }

func meshDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("fluid_"+name, help, labels, nil)
}

var (
	descMeshMembers = meshDesc("mesh_members", "Members of the mesh, by state.", "state")
	descMeshLag     = meshDesc("mesh_lag_seconds", "Time since the last frame from another member of the mesh.")
	descMeshFrames  = meshDesc("mesh_frames_total", "Frames of the mesh, by direction.", "direction")
	descMeshBytes   = meshDesc("mesh_bytes_total", "Bytes in frames of the mesh, by direction.", "direction")
	descMeshPulls   = meshDesc("mesh_pulls_total", "Requests for changes that were missed.")
	descMeshResets  = meshDesc("mesh_resets_total", "Full histories taken in.")
	descMeshDropped = meshDesc("mesh_dropped_total", "Frames not taken in or not sent, by reason.", "reason")
	descMismatches  = meshDesc("mesh_mismatches_total", "Origins found to hold other records than they should, without lacking any.")
	descRepairs     = meshDesc("mesh_repairs_total", "Origins taken anew because of that.")
	descPropagation = meshDesc("mesh_propagation_seconds", "Age of beacons of other members as they arrive: how long changes take to get here.")
	descOrigins     = meshDesc("origins", "Agents that vouch for instances, by the state of their node.", "state")
	descBehind      = meshDesc("origin_behind", "Ranges of changes of an origin that are known beyond a gap: what is before them is missing here.", "origin", "node")
	descConflicts   = meshDesc("conflicts_total", "Versions taken in that were written without knowledge of another origin's.")
)

// Describe implements prometheus.Collector.
func (meshCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descMeshMembers, descMeshLag, descMeshFrames, descMeshBytes, descMeshPulls, descMeshResets, descMeshDropped,
		descMismatches, descRepairs, descPropagation,
		descOrigins, descBehind, descConflicts,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c meshCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	c.a.view.mu.RLock()
	origins, conflicts := c.a.view.cat.Origins(), c.a.view.cat.Conflicts()
	c.a.view.mu.RUnlock()
	counter(descConflicts, conflicts)
	states := map[string]int{}
	for _, o := range origins {
		states[o.State.String()]++
		if !o.Own {
			gauge(descBehind, float64(o.Behind), o.Origin.String(), o.Node.Name)
		}
	}
	for state, n := range states {
		gauge(descOrigins, float64(n), state)
	}
	p := c.a.mesh.Load()
	if p == nil {
		return
	}
	members := map[mesh.State]int{mesh.Alive: 0, mesh.Suspect: 0, mesh.Dead: 0, mesh.Left: 0}
	for _, m := range (*p).Members() {
		members[m.State]++
	}
	for state, n := range members {
		gauge(descMeshMembers, float64(n), state.String())
	}
	st := (*p).Stats()
	if !st.LastFrame.IsZero() {
		gauge(descMeshLag, time.Since(st.LastFrame).Seconds())
	}
	counter(descMeshFrames, st.FramesIn, "in")
	counter(descMeshFrames, st.FramesOut, "out")
	counter(descMeshBytes, st.BytesIn, "in")
	counter(descMeshBytes, st.BytesOut, "out")
	counter(descMeshPulls, st.Pulls)
	counter(descMeshResets, st.Resets)
	counter(descMismatches, st.Mismatches)
	counter(descRepairs, st.Repairs)
	ch <- prometheus.MustNewConstHistogram(descPropagation, st.Propagation.Count, st.Propagation.Sum, st.Propagation.Buckets())
	for reason, n := range st.Dropped {
		counter(descMeshDropped, n, reason)
	}
}
