package agent

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	// rosterPause is how long to wait before a member that could not be committed
	// to the roster is tried again, and how often the mesh is looked at.
	rosterPause = time.Second
	// rosterGrace is how long the leader alone commits members that the mesh
	// brought: it may be in another mesh, or none.
	rosterGrace = 5 * time.Second
)

// keepRoster commits DNS members to the roster when they are first seen, at
// this agent's socket or in the mesh, and takes off it those that left the
// mesh, until ctx ends.
func (a *Agent) keepRoster(ctx context.Context) {
	look := time.NewTicker(rosterPause)
	defer look.Stop()
	seen := sightings{missed: map[string]time.Time{}, gone: map[string]time.Time{}}
	for {
		members, changed := a.feed.Members()
		a.vouchFor(members)
		var missing []store.Member
		st := a.store.State()
		for _, m := range members {
			if known, ok := st.Member(m.ID); m.Connected && (!ok || known.Name != memberName(m)) {
				missing = append(missing, store.Member{ID: m.ID, Name: memberName(m)})
			}
		}
		met, left := a.strangers(st, members, &seen)
		meta := store.Meta{Principal: "agent:" + a.cfg.RaftID()}
		// Without a quorum the writes wait for one by themselves.
		if missing = append(missing, met...); len(missing) > 0 && a.store.PutMembers(ctx, meta, missing) != nil {
			changed = nil // not again at once
		}
		for _, id := range left {
			if err := a.store.ForgetMember(ctx, meta, id); err != nil {
				delete(seen.gone, id)
				continue
			}
			a.log.Info("a DNS member left the mesh and is off the roster", "member", id)
		}
		select {
		case <-changed:
		case <-a.met:
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// vouchFor makes this agent answer in the mesh for the DNS members at its
// socket.
func (a *Agent) vouchFor(members []feed.Member) {
	p := a.mesh.Load()
	if p == nil {
		return
	}
	reports := []mesh.Report{}
	for _, m := range members {
		if m.Connected {
			reports = append(reports, mesh.Report{ID: m.ID, Applied: m.Applied, TTL: m.ClientTTL})
		}
	}
	if !slices.Equal(reports, a.vouched) || p != a.vouchedTo {
		a.vouched, a.vouchedTo = reports, p
		(*p).Report(reports)
	}
}

// sightings is what keepRoster remembers of the DNS members of the mesh.
type sightings struct {
	missed map[string]time.Time // since when the roster lacks one
	gone   map[string]time.Time // when one left that was taken off for it
}

// strangers returns the DNS members of the mesh that the roster lacks, and
// those of the roster that said goodbye to the mesh. Only the leader takes
// members off, each once: it may be back without gossip.
func (a *Agent) strangers(st store.State, here []feed.Member, seen *sightings) (met []store.Member, left []string) {
	p := a.mesh.Load()
	if p == nil {
		return nil, nil
	}
	leads := a.store.IsLeader()
	for _, m := range (*p).Members() {
		if m.Role != mesh.RoleDNS {
			continue
		}
		_, listed := st.Member(m.ID)
		connected := slices.ContainsFunc(here, func(f feed.Member) bool { return f.ID == m.ID && f.Connected })
		switch {
		case m.State == mesh.Alive && !listed:
			first, ok := seen.missed[m.ID]
			if !ok {
				first = time.Now()
				seen.missed[m.ID] = first
			}
			if leads || time.Since(first) > rosterGrace {
				met = append(met, store.Member{ID: m.ID, Name: cmp.Or(m.Name, m.ID)})
			}
			continue
		case m.State == mesh.Left && listed && leads && !connected && seen.gone[m.ID] != m.Since:
			seen.gone[m.ID] = m.Since
			left = append(left, m.ID)
		}
		delete(seen.missed, m.ID)
	}
	return met, left
}

func memberName(m feed.Member) string { return cmp.Or(m.Name, m.ID) }

// local waits until the DNS members connected to this agent, or to the clients
// that report to it, have applied pos, or ctx ends, and returns how far they are.
func (a *Agent) local(ctx context.Context, pos record.Position) api.Applied {
	for {
		members, changed := a.feed.Members()
		clients, more := a.clients.list(time.Now())
		for _, c := range clients {
			members = append(members, c.members...)
		}
		var silent <-chan time.Time // when a client turns silent that is waited for
		if at := firstSilence(clients, pos); !at.IsZero() {
			silent = time.After(time.Until(at))
		}
		out := api.Applied{Members: make([]api.AppliedMember, len(members))}
		waiting := false
		for i, m := range members {
			done := !m.Applied.Before(pos)
			waiting = waiting || m.Connected && !done
			out.Members[i] = api.AppliedMember{
				ID: m.ID, Name: memberName(m), Applied: done, Connected: m.Connected, ClientTTL: m.ClientTTL.String(),
			}
		}
		if !waiting {
			return out
		}
		select {
		case <-changed:
		case <-more:
		case <-silent:
		case <-a.stopping:
			return out
		case <-ctx.Done():
			return out
		}
	}
}

// members describes the agents of the cluster and the DNS members of the
// roster, for the HTTP interface. Of DNS members at other agents only the
// roster is known here.
func (a *Agent) members() []api.Member {
	var out []api.Member
	for _, sv := range a.store.Servers() {
		state := "alive"
		if !sv.Healthy && a.store.IsLeader() {
			state = "suspect" // only the leader hears of all
		}
		out = append(out, api.Member{Name: sv.Name, ID: sv.ID, Addr: sv.Addr, Role: "agent", State: state, Zone: sv.Zone, Host: sv.Name})
	}
	here := map[string]bool{}
	local, _ := a.feed.Members()
	for _, m := range local {
		state := "dead"
		if m.Connected {
			state = "alive"
		}
		if _, ok := a.store.State().Member(m.ID); !ok && !m.Connected {
			continue // forgotten
		}
		here[m.ID] = true
		out = append(out, api.Member{
			Name: memberName(m), ID: m.ID, Role: "dns", State: state, Zone: a.cfg.Zone, Host: a.cfg.NodeName(), AppliedIndex: m.Applied.Index,
		})
	}
	out = append(out, a.reporting(here)...)
	applied, hosts := a.appliedInMesh(), a.hosts()
	for _, m := range a.meshMembers() {
		m.AppliedIndex, m.Host = applied[m.ID].Index, hosts[m.ID]
		if after, ok := strings.CutPrefix(m.ID, "agent-"); ok { // listed as a server; here is its gossip address
			m.ID = after
			out = slices.DeleteFunc(out, func(o api.Member) bool { return o.ID == m.ID })
		} else if here[m.ID] {
			i := slices.IndexFunc(out, func(o api.Member) bool { return o.ID == m.ID })
			out[i].Addr = m.Addr
			continue
		}
		here[m.ID] = true
		out = append(out, m)
	}
	for m := range a.store.State().Members() {
		if !here[m.ID] {
			out = append(out, api.Member{Name: cmp.Or(m.Name, m.ID), ID: m.ID, Role: "dns", State: "suspect"})
		}
	}
	for i := range out {
		if out[i].ID == a.store.ServerID() {
			out[i].AppliedIndex = a.store.State().Position().Index
		}
	}
	slices.SortFunc(out, func(x, y api.Member) int { return cmp.Or(cmp.Compare(x.Role, y.Role), cmp.Compare(x.ID, y.ID)) })
	return out
}

// hosts returns the name of the node of each member of the mesh, as the agents
// say it: of themselves and of the DNS members at their sockets.
func (a *Agent) hosts() map[string]string {
	out := map[string]string{}
	a.view.mu.RLock()
	defer a.view.mu.RUnlock()
	for _, o := range a.view.cat.Origins() {
		out[o.Node.ID] = o.Node.Name
		for _, id := range o.Node.Members {
			out[id] = o.Node.Name
		}
	}
	return out
}

// zones returns the zones that the DNS members at this agent's socket serve.
func (a *Agent) zones() []string {
	var out []string
	members, _ := a.feed.Members()
	for _, m := range members {
		out = append(out, m.Zones...)
	}
	return out
}
