package fluid

import (
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
)

// meshCollector reports how well the mesh carries what it carries.
type meshCollector struct{ leases *lessor }

func meshDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "mesh_"+name), help, nil, nil)
}

var (
	descPulls       = meshDesc("pulls_total", "Counter of requests for changes that were missed.")
	descResets      = meshDesc("resets_total", "Counter of full histories taken in.")
	descMismatches  = meshDesc("mismatches_total", "Counter of origins found to hold other records than they should, without lacking any.")
	descRepairs     = meshDesc("repairs_total", "Counter of origins taken anew because of that.")
	descPropagation = meshDesc("propagation_seconds", "Age of beacons of other members as they arrive: how long changes take to get here.")
)

func init() { prometheus.MustRegister(meshCollector{leases: &leases}) }

// Describe implements prometheus.Collector.
func (meshCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPulls, descResets, descMismatches, descRepairs, descPropagation} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c meshCollector) Collect(ch chan<- prometheus.Metric) {
	e := c.leases.running()
	if e == nil || e.member == nil {
		return
	}
	st := e.member.Stats()
	for d, n := range map[*prometheus.Desc]uint64{
		descPulls: st.Pulls, descResets: st.Resets, descMismatches: st.Mismatches, descRepairs: st.Repairs,
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	ch <- prometheus.MustNewConstHistogram(descPropagation, st.Propagation.Count, st.Propagation.Sum, st.Propagation.Buckets())
}
