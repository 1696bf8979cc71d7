package fluid

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

const subsystem = "fluid"

var (
	requests = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: subsystem, Name: "requests_total",
		Help: "Counter of queries for the zones, by what became of them.",
	}, []string{"server", "zone", "view", "result"})
	agentConnected = promauto.NewGauge(prometheus.GaugeOpts{
		Namespace: plugin.Namespace, Subsystem: subsystem, Name: "agent_connected",
		Help: "Whether the agent's socket is connected.",
	})
	agentLag = promauto.NewGauge(prometheus.GaugeOpts{
		Namespace: plugin.Namespace, Subsystem: subsystem, Name: "agent_lag_seconds",
		Help: "How long ago the agent heard of the leader, as of its last heartbeat.",
	})
	snapshotErrors = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: subsystem, Name: "snapshot_errors_total",
		Help: "Counter of writes of the snapshot file that failed.",
	})
	truncated = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: subsystem, Name: "truncated_total",
		Help: "Counter of answers that were cut to what the client takes.",
	}, []string{"proto"})
)

// result is what became of a query.
type result int

const (
	resultAnswer result = iota
	resultNoData
	resultNXDomain
	resultStale
	resultUnsynced
	resultExpired
	resultFallthrough
	resultRefused
	resultFailed
	results
)

var resultNames = [results]string{
	"answer", "nodata", "nxdomain", "stale", "unsynced", "expired", "fallthrough", "refused", "failed",
}

// counters are the counters of one server, zone and view. They are looked up
// once and kept, because a lookup by labels costs more than an answer.
type counters struct {
	server, view string
	zone         *served
	by           [results]prometheus.Counter
}

// counterSet finds counters without a lock. There are as many as servers
// times zones times views, a handful.
type counterSet struct {
	list atomic.Pointer[[]*counters]
	mu   sync.Mutex // held to add
}

func (s *counterSet) get(ctx context.Context, z *served) *counters {
	server, view := metrics.WithServer(ctx), metrics.WithView(ctx)
	if list := s.list.Load(); list != nil {
		for _, c := range *list {
			if c.zone == z && c.server == server && c.view == view {
				return c
			}
		}
	}
	return s.add(server, view, z)
}

func (s *counterSet) add(server, view string, z *served) *counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &counters{server: server, view: view, zone: z}
	for i, name := range resultNames {
		c.by[i] = requests.WithLabelValues(server, z.Origin, view, name)
	}
	list := []*counters{c}
	if old := s.list.Load(); old != nil {
		list = append(list, *old...)
	}
	s.list.Store(&list)
	return c
}

// collector reports what the running engine holds.
type collector struct {
	leases *lessor
}

var (
	descEntries = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "entries"),
		"Number of entries held, by type.", []string{"type"}, nil)
	descHits = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "answers_hits_total"),
		"Counter of answers found ready, by type.", []string{"type"}, nil)
	descMisses = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "answers_misses_total"),
		"Counter of answers made anew, by type.", []string{"type"}, nil)
	descEvictions = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "answers_evictions_total"),
		"Counter of ready answers dropped for others, by type.", []string{"type"}, nil)
	descApplied = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "applied_index"),
		"Raft index of the state that is answered from.", nil, nil)
	descGeneration = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "applied_generation"),
		"Generation of the state that is answered from.", nil, nil)
	descState = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "state"),
		"State of the data: 1 for the one it is in.", []string{"state"}, nil)
	descAge = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "age_seconds"),
		"Time since the last word that the data is up to date.", nil, nil)
	descSerial = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "serial"),
		"Serial of the zones.", nil, nil)
	descGuarded = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "guarded_services"),
		"Number of services in whose answers lost instances are kept, because most were lost at once.", nil, nil)
	descEvents = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "events_total"),
		"Counter of what the agent sent or went wrong with it, by type.", []string{"type"}, nil)
)

func init() { prometheus.MustRegister(collector{leases: &leases}) }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descEntries, descHits, descMisses, descEvictions, descApplied, descGeneration, descState, descAge, descSerial, descEvents, descGuarded,
		descMembers, descMeshLag, descFrames, descBytes, descDropped,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	e := c.leases.running()
	if e == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descEntries, float64(e.services.Len()), "service")
	gauge(descEntries, float64(e.nodes.Len()), "node")
	positive, negative := e.answers.Stats(), e.denials.Stats()
	gauge(descEntries, float64(positive.Entries), "answer")
	gauge(descEntries, float64(negative.Entries), "denial")
	counter(descHits, positive.Hits, "answer")
	counter(descHits, negative.Hits, "denial")
	counter(descMisses, positive.Misses, "answer")
	counter(descEvictions, positive.Evictions, "answer")
	counter(descEvictions, negative.Evictions, "denial")
	e.mu.Lock()
	pos, bad, guarded := e.catalog.Position(), e.catalog.Quarantined(), len(e.guarded)
	e.mu.Unlock()
	gauge(descEntries, float64(bad), "quarantined")
	gauge(descGuarded, float64(guarded))
	gauge(descApplied, float64(pos.Index))
	gauge(descGeneration, float64(pos.Generation))
	state := e.state.Load()
	for i, name := range stateNames {
		v := 0.0
		if int(state) == i {
			v = 1
		}
		gauge(descState, v, name)
	}
	if state != unsynced {
		gauge(descAge, e.age().Seconds())
	}
	gauge(descSerial, float64(e.serial.Load()))
	st := e.client.Stats()
	for name, n := range map[string]uint64{
		"connect": st.Connects, "failure": st.Failures, "snapshot": st.Snapshots, "resume": st.Resumes,
		"batch": st.Batches, "behind": st.Behind, "diverged": st.Diverged, "relay": st.Relayed, "refused": e.refused.Load(),
	} {
		counter(descEvents, n, name)
	}
	if e.member != nil {
		e.member.collect(gauge, counter)
	}
}

var (
	descMembers = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "mesh_members"),
		"Number of members of the mesh, by state.", []string{"state"}, nil)
	descMeshLag = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "mesh_lag_seconds"),
		"Time since the last frame from another member of the mesh.", nil, nil)
	descFrames = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "mesh_frames_total"),
		"Counter of frames of the mesh, by direction.", []string{"direction"}, nil)
	descBytes = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "mesh_bytes_total"),
		"Counter of bytes in frames of the mesh, by direction.", []string{"direction"}, nil)
	descDropped = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, subsystem, "mesh_dropped_total"),
		"Counter of frames of the mesh that were not taken in or not sent, by reason.", []string{"reason"}, nil)
)

// collect reports what the member sees.
func (m *member) collect(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	states := map[mesh.State]int{mesh.Alive: 0, mesh.Suspect: 0, mesh.Dead: 0, mesh.Left: 0}
	for _, o := range m.Members() {
		states[o.State]++
	}
	for state, n := range states {
		gauge(descMembers, float64(n), state.String())
	}
	st := m.Stats()
	if !st.LastFrame.IsZero() {
		gauge(descMeshLag, time.Since(st.LastFrame).Seconds())
	}
	counter(descFrames, st.FramesIn, "in")
	counter(descFrames, st.FramesOut, "out")
	counter(descBytes, st.BytesIn, "in")
	counter(descBytes, st.BytesOut, "out")
	for reason, n := range st.Dropped {
		counter(descDropped, n, reason)
	}
}
