package fluid

import (
	"context"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// tell lets the agents of the mesh know what this server has applied, whenever
// that changed, until ctx ends: a write that waits until it is everywhere waits
// for this. The mesh must not be called from its own calls, so it needs a
// goroutine.
func (m *member) tell(ctx context.Context) {
	var last mesh.Report
	for {
		select {
		case <-m.told:
		case <-ctx.Done():
			return
		}
		if r, ok := m.e.applied(); ok && r != last {
			last = r
			m.Report([]mesh.Report{r})
		}
	}
}

// poke makes tell look. It never blocks.
func (m *member) poke() {
	select {
	case m.told <- struct{}{}:
	default:
	}
}

// applied returns what lookups see, or false while a restart would go back
// behind it.
func (e *engine) applied() (mesh.Report, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.volatile || e.unsaved != nil {
		return mesh.Report{}, false
	}
	return mesh.Report{ID: e.head.Member, Applied: e.catalog.Position(), TTL: e.clientTTL()}, true
}
