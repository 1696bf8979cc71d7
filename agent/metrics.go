package agent

import (
	"sync"

	metrics "github.com/hashicorp/go-metrics"
	promsink "github.com/hashicorp/go-metrics/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

// raftMetrics is what hashicorp/raft and memberlist report of themselves. They
// know one sink per process, so agents in one process share it.
var raftMetrics = sync.OnceValues(func() (*prometheus.Registry, error) {
	reg := prometheus.NewRegistry()
	sink, err := promsink.NewPrometheusSinkFrom(promsink.PrometheusOpts{Registerer: reg})
	if err != nil {
		return nil, err
	}
	cfg := metrics.DefaultConfig("")
	cfg.EnableHostname = false
	cfg.EnableRuntimeMetrics = false // the Go collector has them
	_, err = metrics.NewGlobal(cfg, sink)
	return reg, err
})

// register adds the agent's own metrics to reg.
func (a *Agent) registerMetrics(reg prometheus.Registerer) error {
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "fluid", Name: name, Help: help}, f)
	}
	counter := func(name, help string, f func(feed.ServerStats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "fluid", Subsystem: "feed", Name: name, Help: help},
			func() float64 { return float64(f(a.feed.Stats())) })
	}
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "fluid", Name: "build_info", Help: "1, with the version.",
		ConstLabels: prometheus.Labels{"version": record.Version},
	}, func() float64 { return 1 })
	bad := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "fluid", Subsystem: "gossip", Name: "bad_acks_total", Help: "Positions above the known commit that members of the mesh reported as applied.",
	}, func() float64 { return float64(a.badReports.Load()) })
	reaps := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "fluid", Subsystem: "gossip", Name: "reaped_origins_total", Help: "Origins dead for long that this agent dropped for good, as the leader.",
	}, func() float64 { return float64(a.reaped.Load()) })
	state := func(f func(store.State) float64) func() float64 {
		return func() float64 { return f(a.store.State()) }
	}
	for _, c := range append(append(append(a.connectionMetrics(), a.limitMetrics()...), a.followMetrics()...),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info, bad, reaps, meshCollector{a},
		gauge("applied_index", "Raft index that is applied.", state(func(s store.State) float64 { return float64(s.Position().Index) })),
		gauge("generation", "Generation that the index counts in.", state(func(s store.State) float64 { return float64(s.Position().Generation) })),
		gauge("instances", "Committed instances.", state(func(s store.State) float64 { return float64(s.Instances()) })),
		gauge("state_bytes", "Bytes of committed keys and values.", state(func(s store.State) float64 { return float64(s.Bytes()) })),
		gauge("idempotency_keys", "Idempotency keys that are remembered.", state(func(s store.State) float64 { return float64(s.Keys()) })),
		gauge("leader_known", "1 if a leader is known.", func() float64 { return boolFloat(a.store.Leader().ID != "") }),
		gauge("is_leader", "1 if this agent leads.", func() float64 { return boolFloat(a.store.IsLeader()) }),
		gauge("class_conflicts", "Instances of this agent that are hidden, for their service is critical.", func() float64 { return float64(a.conflicts()) }),
		gauge("dns_members", "DNS servers connected to the socket.", func() float64 { return float64(a.connected()) }),
		counter("sessions_total", "Sessions of DNS servers.", func(s feed.ServerStats) uint64 { return s.Sessions }),
		counter("refused_total", "Sessions refused.", func(s feed.ServerStats) uint64 { return s.Refused }),
		counter("snapshots_total", "Full snapshots sent.", func(s feed.ServerStats) uint64 { return s.Snapshots }),
		counter("resumes_total", "Sessions that went on where they were.", func(s feed.ServerStats) uint64 { return s.Resumes }),
		counter("batches_total", "Batches of changes sent.", func(s feed.ServerStats) uint64 { return s.Batches }),
		counter("bad_acks_total", "Acknowledged positions above the known commit.", func(s feed.ServerStats) uint64 { return s.BadAcks }),
	) {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// followMetrics tell the part in consensus; of a client how it follows, and of
// a server who follows it.
func (a *Agent) followMetrics() []prometheus.Collector {
	role, follows := roleServer, func() float64 { return float64(a.following()) }
	name, help := "followers", "Clients that follow this server."
	if a.isClient() {
		role, name, help = roleClient, "follows_server", "1 if this client follows a server."
		follows = func() float64 {
			url, _ := a.follower.follows()
			return boolFloat(url != "")
		}
	}
	out := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "fluid", Name: "role", Help: "1, with the agent's part in consensus: server or client.",
			ConstLabels: prometheus.Labels{"role": role},
		}, func() float64 { return 1 }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "fluid", Name: name, Help: help}, follows),
	}
	if !a.isClient() {
		return out
	}
	for name, c := range map[string]struct {
		help string
		of   func(feed.ClientStats) uint64
	}{
		"sessions_total":  {"Sessions with servers.", func(s feed.ClientStats) uint64 { return s.Connects }},
		"failures_total":  {"Sessions, and attempts at one, that ended with an error.", func(s feed.ClientStats) uint64 { return s.Failures }},
		"snapshots_total": {"Full states taken from servers.", func(s feed.ClientStats) uint64 { return s.Snapshots }},
		"batches_total":   {"Batches of changes taken from servers.", func(s feed.ClientStats) uint64 { return s.Batches }},
	} {
		out = append(out, prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "fluid", Subsystem: "follow", Name: name, Help: c.help},
			func() float64 { return float64(c.of(a.follower.feed.Stats())) }))
	}
	return out
}

// following returns how many clients follow this server.
func (a *Agent) following() int {
	n := 0
	members, _ := a.followers.Members()
	for _, m := range members {
		if m.Connected {
			n++
		}
	}
	return n
}

// connected returns how many DNS servers are connected.
func (a *Agent) connected() int {
	n := 0
	members, _ := a.feed.Members()
	for _, m := range members {
		if m.Connected {
			n++
		}
	}
	return n
}

func boolFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
