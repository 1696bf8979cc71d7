package agent

import (
	"context"
	"slices"
	"time"

	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	reapEvery = 5 * time.Second
	// In reapWindow the leader reaps at most one in reapShare of all origins, and
	// at least one: more at a time are not dead, it is the leader that is alone.
	reapWindow = time.Hour
	reapShare  = 10
)

// reaper retires origins that nobody writes any more: those dead for
// gossip_reap_after, if this agent leads, and its own former ones.
type reaper struct {
	done   []time.Time    // reaps within the window
	taken  []time.Time    // DNS members taken off the roster within the window
	former []catalog.Head // origins that this agent gave up
}

// reap looks for what is to be reaped, until ctx ends.
func (a *Agent) reap(ctx context.Context) {
	tick := time.NewTicker(min(reapEvery, a.cfg.Gossip.ReapAfter))
	defer tick.Stop()
	var r reaper
	for {
		select {
		case id := <-a.cloned:
			a.takeNewOrigin(&r, id)
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		a.reapFormer(ctx, &r)
		if a.store.IsLeader() && a.mesh.Load() != nil {
			a.reapDead(ctx, &r, time.Now())
		}
	}
}

// noteClone is told of an origin of this agent that somebody else writes, too:
// a copy of its data directory runs. It does not block.
func (a *Agent) noteClone(id record.OriginID) {
	select {
	case a.cloned <- id:
	default: // it is told again
	}
}

// takeNewOrigin leaves an origin to whoever else writes it.
func (a *Agent) takeNewOrigin(r *reaper, id record.OriginID) {
	if id != *a.origin.id.Load() {
		return // left already
	}
	old, err := a.origin.renew(time.Now())
	if err != nil {
		a.log.Error("somebody else writes under the origin of this agent, and it could not take a new one", "origin", id.String(), "error", err)
		return
	}
	a.tendOnce(time.Now())
	r.former = append(r.former, old)
	a.log.Error("somebody else writes under the origin of this agent: is its data directory in use twice? it took a new one",
		"old", id.String(), "new", a.origin.id.Load().String())
}

// reapFormer asks for a reap of what this agent gave up, until that is done.
func (a *Agent) reapFormer(ctx context.Context, r *reaper) {
	r.former = slices.DeleteFunc(r.former, func(h catalog.Head) bool {
		return h.Epoch == 0 || a.retire(ctx, h.Origin, h.Epoch) == nil
	})
}

// retire commits that an origin is no more, up to an epoch.
func (a *Agent) retire(ctx context.Context, id record.OriginID, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	_, err := a.store.PutFence(ctx, store.Meta{Principal: "agent:" + a.cfg.RaftID()},
		record.Fence{Kind: record.FenceReap, Origin: id, Epoch: epoch})
	return err
}

// reapDead retires the origins, and takes off the roster the DNS members, that
// are dead for long.
func (a *Agent) reapDead(ctx context.Context, r *reaper, now time.Time) {
	a.view.mu.RLock()
	origins := a.view.cat.Origins()
	a.view.mu.RUnlock()
	long := func(since time.Time) bool { return now.Sub(since) >= a.cfg.Gossip.ReapAfter }
	old := func(at time.Time) bool { return now.Sub(at) >= reapWindow }
	r.done, r.taken = slices.DeleteFunc(r.done, old), slices.DeleteFunc(r.taken, old)
	for _, o := range origins {
		if o.Own || o.State != catalog.Dead || !long(time.UnixMilli(o.Since)) {
			continue
		}
		if len(r.done) >= max(1, len(origins)/reapShare) {
			a.log.Warn("origins dead for long are not reaped, for too many are", "reaped", len(r.done), "origins", len(origins))
			break
		}
		if err := a.retire(ctx, o.Origin, o.Epoch); err != nil {
			a.log.Warn("could not reap a dead origin", "node", o.Node.Name, "origin", o.Origin.String(), "error", err)
			return
		}
		r.done = append(r.done, now)
		a.reaped.Add(1)
		a.log.Info("reaped a dead origin", "node", o.Node.Name, "origin", o.Origin.String(), "epoch", o.Epoch, "records", o.Records)
	}
	p := a.mesh.Load()
	if p == nil {
		return
	}
	st := a.store.State()
	listed := 0
	for range st.Members() {
		listed++
	}
	for _, m := range (*p).Members() {
		if len(r.taken) >= max(1, listed/reapShare) {
			return
		}
		if _, ok := st.Member(m.ID); !ok || m.Role != mesh.RoleDNS || m.State != mesh.Dead || !long(m.Since) {
			continue
		}
		if a.store.ForgetMember(ctx, store.Meta{Principal: "agent:" + a.cfg.RaftID()}, m.ID) == nil {
			r.taken = append(r.taken, now)
			a.log.Info("a DNS member that is dead for long is off the roster", "member", m.ID, "name", m.Name)
		}
	}
}
