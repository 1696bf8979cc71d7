package agent

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

// everywhere asks every server of the cluster about the DNS members at its
// socket, and the DNS members and the other agents of the mesh, all at once, and
// compares with the roster. A member of the roster that nobody vouches for
// lags: it may be answering from its memory. Once everybody on the roster is
// known to be there, the rest gets a moment to tell of members that are not on
// it yet; a server that does not answer delays no longer than that.
func (a *Agent) everywhere(ctx context.Context, pos record.Position) api.Spread {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(joinTimeout)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	servers, self := a.store.Servers(), a.store.ServerID()
	if a.isClient() { // no server, but it has DNS members as one has
		servers = append(servers, store.Server{ID: self})
	}
	results := make(chan []api.AppliedMember, len(servers)+1)
	for _, sv := range servers {
		go func() {
			if sv.ID == self {
				results <- a.local(ctx, pos).Members
				return
			}
			var got api.Applied
			if c, err := a.peers.to(sv.HTTP); err == nil {
				// The other agent answers a little before the time is up here. One
				// that does not answer vouches for nobody.
				got, _ = c.Applied(ctx, pos, max(time.Until(deadline)*9/10, time.Millisecond))
			}
			results <- got.Members
		}()
	}
	go func() { results <- a.surveyed(ctx, pos) }()
	seen := map[string]api.AppliedMember{}
	var out api.Spread
	var enough <-chan time.Time
	for range len(servers) + 1 {
		select {
		case members := <-results:
			for _, m := range members {
				seen[m.ID] = merged(seen[m.ID], m)
			}
		case <-enough:
			return out
		}
		if out = a.compare(seen); out.Everywhere && enough == nil {
			enough = time.After(spreadGrace)
		}
	}
	return out
}

// spreadGrace is how long everywhere waits for those that nobody needs.
const spreadGrace = time.Second

// merged is what two say of one member.
func merged(old, m api.AppliedMember) api.AppliedMember {
	m.Name = cmp.Or(old.Name, m.Name)
	m.Applied = m.Applied || old.Applied
	m.Connected = m.Connected || old.Connected
	if was, err := time.ParseDuration(old.ClientTTL); err == nil {
		if ttl, err := time.ParseDuration(m.ClientTTL); err != nil || ttl < was {
			m.ClientTTL = old.ClientTTL
		}
	}
	return m
}

// compare compares what is known of DNS members with the roster.
func (a *Agent) compare(seen map[string]api.AppliedMember) api.Spread {
	out := api.Spread{}
	st := a.store.State()
	for m := range st.Members() {
		if _, ok := seen[m.ID]; !ok {
			out.Lagging = append(out.Lagging, cmp.Or(m.Name, m.ID)+" (unreachable)")
		}
	}
	var ttl time.Duration
	for _, m := range seen {
		if d, err := time.ParseDuration(m.ClientTTL); err == nil {
			ttl = max(ttl, d)
		}
		switch {
		case m.Applied:
		case m.Connected:
			out.Lagging = append(out.Lagging, m.Name)
		default:
			if _, ok := st.Member(m.ID); ok { // not one that was forgotten
				out.Lagging = append(out.Lagging, m.Name+" (unreachable)")
			}
		}
	}
	slices.Sort(out.Lagging)
	out.ClientTTL = ttl.String()
	out.Everywhere = len(out.Lagging) == 0
	return out
}

// surveyed asks the mesh: the DNS members that are not at this agent's socket,
// and the agents that are no servers, until all have applied pos or ctx ends.
// A position that this agent does not know to be committed is no answer.
func (a *Agent) surveyed(ctx context.Context, pos record.Position) []api.AppliedMember {
	p := a.mesh.Load()
	if p == nil {
		return nil
	}
	var ask []string
	var out []api.AppliedMember
	names := map[string]string{}
	for _, m := range a.unheard((*p).Members()) {
		names[m.ID] = m.Name
		if m.Role == mesh.RoleDNS {
			out = append(out, api.AppliedMember{ID: m.ID, Name: m.Name, Connected: true})
		}
		ask = append(ask, m.ID)
	}
	for _, r := range (*p).Applied(ctx, pos, ask) {
		done := !r.Applied.Before(pos)
		if known := a.knownCommit(); done && known.Before(r.Applied) {
			// The mesh can be faster than this agent's log.
			if a.store.WaitApplied(ctx, r.Applied) != nil {
				a.badReports.Add(1)
				done = false
			}
		}
		m := api.AppliedMember{ID: r.ID, Name: cmp.Or(names[r.ID], r.ID), Applied: done, Connected: true, ClientTTL: r.TTL.String()}
		if i := slices.IndexFunc(out, func(o api.AppliedMember) bool { return o.ID == m.ID }); i >= 0 {
			out[i] = merged(out[i], m)
		} else {
			out = append(out, m)
		}
	}
	return out
}

// unheard returns the members that nobody else is asked about: DNS members that
// are not at this agent's socket, and agents without a log. Of these, only
// those that are alive can answer.
func (a *Agent) unheard(members []mesh.Member) []mesh.Member {
	covered := map[string]bool{a.meshID(): true}
	for _, sv := range a.store.Servers() {
		covered[memberID(sv.ID)] = true
	}
	here, _ := a.feed.Members()
	for _, m := range here {
		covered[m.ID] = covered[m.ID] || m.Connected
	}
	return slices.DeleteFunc(members, func(m mesh.Member) bool { return m.State != mesh.Alive || covered[m.ID] })
}

// knownCommit returns the position up to which this agent knows the log to be
// committed.
func (a *Agent) knownCommit() record.Position {
	pos := a.store.State().Position()
	pos.Index = max(pos.Index, a.store.Status().AppliedIndex)
	return pos
}

// surveyShort bounds how long the list of members waits for how far they are.
const surveyShort = 300 * time.Millisecond

// appliedInMesh asks the mesh how far its DNS members are, for a moment.
func (a *Agent) appliedInMesh() map[string]record.Position {
	p := a.mesh.Load()
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), surveyShort)
	defer cancel()
	var ask []string
	for _, m := range a.unheard((*p).Members()) {
		ask = append(ask, m.ID)
	}
	out := map[string]record.Position{}
	for _, r := range (*p).Applied(ctx, record.Position{}, ask) {
		out[r.ID] = r.Applied
	}
	return out
}
