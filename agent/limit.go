package agent

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// maxMemberlistState is what memberlist carries of the whole catalog, encoded,
// in bytes: its push/pull refuses 20 MB, and sends all of it each time.
const maxMemberlistState = 12 << 20

// itemOverhead is what an encoded item takes besides its value: its key and
// numbers.
const itemOverhead = 64

// gossipState estimates the bytes of the whole catalog when it is encoded.
func (a *Agent) gossipState() int {
	st := a.store.State()
	size := int(st.Bytes())
	a.view.mu.RLock()
	defer a.view.mu.RUnlock()
	for _, o := range a.view.cat.Origins() {
		size += o.Bytes + (o.Records+o.Tombs)*itemOverhead
	}
	return size
}

// room returns an error if the mesh cannot carry another instance. Only
// memberlist has such a limit.
func (a *Agent) room() error {
	if a.cfg.Gossip.Impl != string(mesh.Memberlist) {
		return nil
	}
	if size := a.gossipState(); size > maxMemberlistState {
		a.refused.Add(1)
		return fmt.Errorf("%w: the state has %d bytes, and gossip_impl memberlist carries %d; remove instances, or set GOSSIP_IMPL to crdt everywhere",
			store.ErrQuota, size, maxMemberlistState)
	}
	return nil
}

// writer refuses registrations for which the mesh has no room.
type writer struct {
	committed
	agent *Agent
}

var _ api.Writer = writer{}

// Register implements api.Writer. What is registered already can be changed.
func (w writer) Register(ctx context.Context, m store.Meta, ins []record.Instance) ([]store.Result, error) {
	st := w.State()
	for i := range ins {
		if _, _, ok := st.Instance(ins[i].Service, ins[i].ID); ok {
			continue
		}
		if err := w.agent.room(); err != nil {
			return nil, err
		}
		break
	}
	return w.committed.Register(ctx, m, ins)
}

// limitMetrics shows how near the limit is. Without it there is nothing to show.
func (a *Agent) limitMetrics() []prometheus.Collector {
	if a.cfg.Gossip.Impl != string(mesh.Memberlist) {
		return nil
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "fluid", Subsystem: "gossip", Name: "state_bytes", Help: "Estimated bytes of the state that memberlist carries, 12 MiB at most.",
		}, func() float64 { return float64(a.gossipState()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "fluid", Subsystem: "gossip", Name: "refused_registrations_total", Help: "Registrations refused because memberlist cannot carry more.",
		}, func() float64 { return float64(a.refused.Load()) }),
	}
}
