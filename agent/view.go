package agent

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// view is the agent's own catalog: what the DNS server beside it would
// answer, for the HTTP interface. Readers bring it up to what the store has
// applied, so a client that was told 201 finds its instance.
type view struct {
	store committed
	log   *slog.Logger

	mu   sync.RWMutex // guards what follows
	cat  *catalog.Catalog
	mesh mesh.Mesh // takes what is committed; nil without one

	version uint64        // of the gossip known
	boot    string        // random; versions count from its start
	recent  []news        // what the latest versions changed, oldest first
	gossip  chan struct{} // closed when version rises

	started time.Time
}

var _ api.View = (*view)(nil)

func newView(s committed, log *slog.Logger) *view {
	return &view{store: s, log: log, cat: catalog.New(), gossip: make(chan struct{}), boot: rand.Text()[:8], started: time.Now()}
}

// run follows the store until ctx ends, so that readers find little to do.
func (v *view) run(ctx context.Context) {
	for {
		v.catchUp()
		select {
		case <-v.store.Changed(v.position()):
		case <-ctx.Done():
			return
		}
	}
}

// catchUp applies to the catalog what the store has and it has not.
func (v *view) catchUp() {
	st := v.store.State()
	if v.position() == st.Position() {
		return
	}
	if m, have, ok := v.take(st); ok && m != nil {
		v.publish(m, have)
	}
}

// take applies a state to the catalog, and returns the mesh to tell and where
// the catalog was, or false if it is as far already.
func (v *view) take(st store.State) (m mesh.Mesh, have record.Position, changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	have = v.cat.Position()
	if !have.Before(st.Position()) {
		return nil, have, false
	}
	entries, ok := st.Since(have)
	var err error
	if ok && !have.IsZero() {
		_, err = v.cat.Apply(have, st.Position(), entries)
	}
	if !ok || have.IsZero() || err != nil {
		_, err = v.cat.Replace(st.Position(), st.Entries())
	}
	if err != nil { // the position only rises, so this is a bug, not a state to recover
		v.log.Error("the view of the agent does not follow the store", "position", st.Position().String(), "error", err)
	}
	return v.mesh, have, err == nil
}

func (v *view) position() record.Position {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.cat.Position()
}

// Status implements api.View. Without a leader the view goes on being what the
// cluster last agreed on as far as this agent knows; Age says since when that
// was not confirmed. It is stale only if it comes from disk alone.
func (v *view) Status() api.ViewStatus {
	v.catchUp()
	st := api.ViewStatus{Position: v.position(), Synced: v.store.State().Initialized()}
	since := v.store.LastContact()
	if st.Stale = since.IsZero(); st.Stale {
		since = v.started
	}
	st.Age = time.Since(since)
	return st
}

// Names implements api.View.
func (v *view) Names(after string, limit int) []string {
	v.catchUp()
	v.mu.RLock()
	defer v.mu.RUnlock()
	var names []string
	for name := range v.cat.Services() {
		if name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(limit, len(names))]
}

// Service implements api.View.
func (v *view) Service(name string) (*catalog.Service, []catalog.Verdict, bool) {
	v.catchUp()
	v.mu.RLock()
	defer v.mu.RUnlock()
	s, ok := v.cat.View(name)
	if !ok {
		return nil, nil, false
	}
	return s, v.cat.Verdicts(name), true
}

// source gives the store to the feed.
type source struct {
	committed
	view *view
}

var _ feed.Source = source{}

// State implements feed.Source.
func (s source) State() feed.State { return s.committed.State() }

// Status implements feed.Source.
func (s source) Status() feed.Status {
	st := s.committed.Status()
	pos := s.committed.State().Position()
	pos.Index = max(pos.Index, st.AppliedIndex)
	known := st.Leader.ID != ""
	out := feed.Status{Commit: pos, LeaderKnown: known}
	if !known {
		out.Lag = s.view.Status().Age
	}
	return out
}
