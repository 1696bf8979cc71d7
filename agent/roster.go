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
	"github.com/fluid-sd/fluid/plugin/record"
)

// rosterPause is how long to wait before a member that could not be committed
// to the roster is tried again.
const rosterPause = time.Second

// keepRoster commits DNS members to the roster when they are first seen at
// this agent's socket, until ctx ends.
func (a *Agent) keepRoster(ctx context.Context) {
	for {
		members, changed := a.feed.Members()
		var missing []store.Member
		st := a.store.State()
		for _, m := range members {
			if known, ok := st.Member(m.ID); m.Connected && (!ok || known.Name != memberName(m)) {
				missing = append(missing, store.Member{ID: m.ID, Name: memberName(m)})
			}
		}
		var retry <-chan time.Time
		if len(missing) > 0 && a.store.PutMembers(ctx, store.Meta{Principal: "agent:" + a.cfg.RaftID()}, missing) != nil {
			retry = time.After(rosterPause) // no quorum; the write waits for one by itself
		}
		select {
		case <-changed:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

func memberName(m feed.Member) string { return cmp.Or(m.Name, m.ID) }

// local waits until the DNS members connected to this agent have applied pos,
// or ctx ends, and returns how far they are.
func (a *Agent) local(ctx context.Context, pos record.Position) api.Applied {
	for {
		members, changed := a.feed.Members()
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
		case <-a.stopping:
			return out
		case <-ctx.Done():
			return out
		}
	}
}

// everywhere asks every agent of the cluster at once about the DNS members at
// its socket, and compares with the roster. A member of the roster that no
// agent vouches for lags: it may be answering from its memory.
func (a *Agent) everywhere(ctx context.Context, pos record.Position) api.Spread {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(joinTimeout)
	}
	servers, self := a.store.Servers(), a.store.ServerID()
	results := make(chan api.Applied, len(servers))
	for _, sv := range servers {
		go func() {
			if sv.ID == self {
				results <- a.local(ctx, pos)
				return
			}
			var got api.Applied
			if c, err := a.peers.to(sv.HTTP); err == nil {
				// The other agent answers a little before the time is up here. One
				// that does not answer vouches for nobody.
				got, _ = c.Applied(ctx, pos, max(time.Until(deadline)*9/10, time.Millisecond))
			}
			results <- got
		}()
	}
	seen := map[string]api.AppliedMember{}
	var ttl time.Duration
	for range servers {
		for _, m := range (<-results).Members {
			if d, err := time.ParseDuration(m.ClientTTL); err == nil {
				ttl = max(ttl, d)
			}
			if old, ok := seen[m.ID]; !ok || m.Applied && !old.Applied || m.Connected && !old.Connected {
				m.Applied = m.Applied || old.Applied
				seen[m.ID] = m
			}
		}
	}
	out := api.Spread{ClientTTL: ttl.String()}
	for m := range a.store.State().Members() {
		if _, ok := seen[m.ID]; !ok {
			seen[m.ID] = api.AppliedMember{ID: m.ID, Name: cmp.Or(m.Name, m.ID)}
		}
	}
	for _, m := range seen {
		switch {
		case m.Applied:
		case m.Connected:
			out.Lagging = append(out.Lagging, m.Name)
		default:
			if _, ok := a.store.State().Member(m.ID); ok { // not one that was forgotten
				out.Lagging = append(out.Lagging, m.Name+" (unreachable)")
			}
		}
	}
	slices.Sort(out.Lagging)
	out.Everywhere = len(out.Lagging) == 0
	return out
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
	for _, m := range a.meshMembers() {
		if after, ok := strings.CutPrefix(m.ID, "agent-"); ok { // listed as a server; here is its gossip address
			m.ID = after
			out = slices.DeleteFunc(out, func(o api.Member) bool { return o.ID == m.ID })
		} else if here[m.ID] {
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
	slices.SortFunc(out, func(x, y api.Member) int { return cmp.Or(cmp.Compare(x.Role, y.Role), cmp.Compare(x.ID, y.ID)) })
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
