package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

var (
	_ autopilot.ApplicationIntegration = (*pilot)(nil)
	_ autopilot.Promoter               = (*pilot)(nil)
)

// pilot tells raft-autopilot what it needs to know, and chooses the voters.
type pilot struct{ s *Store }

// runAutopilot keeps the voters while this server leads.
func (s *Store) runAutopilot(ctx context.Context) {
	p := &pilot{s}
	ap := autopilot.New(s.node(), p, autopilot.WithPromoter(p), autopilot.WithLogger(raftLogger(s.log)),
		autopilot.WithUpdateInterval(s.cfg.HeartbeatTimeout), autopilot.WithReconcileInterval(2*s.cfg.HeartbeatTimeout))
	ap.Start(ctx)
	<-ctx.Done()
	<-ap.Stop()
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (p *pilot) AutopilotConfig() *autopilot.Config {
	c := &p.s.cfg
	return &autopilot.Config{
		CleanupDeadServers:      true,
		LastContactThreshold:    4 * c.HeartbeatTimeout,
		MaxTrailingLogs:         1000,
		MinQuorum:               uint(c.Voters),
		ServerStabilizationTime: c.StabilizationTime,
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (p *pilot) NotifyState(*autopilot.State) {}

// FetchServerStats implements autopilot.ApplicationIntegration from the
// answers that the leader got: no further message is needed.
func (p *pilot) FetchServerStats(_ context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	out := make(map[raft.ServerID]*autopilot.ServerStats, len(servers))
	now, term, last := time.Now(), p.s.node().CurrentTerm(), p.s.node().LastIndex()
	for id := range servers {
		if string(id) == p.s.disk.dir.id {
			out[id] = &autopilot.ServerStats{LastTerm: term, LastIndex: last}
			continue
		}
		if c, ok := p.s.peers.last(id); ok {
			st := &autopilot.ServerStats{LastContact: now.Sub(c.at), LastIndex: c.lastIndex}
			if c.current {
				// Its log agrees with the leader's; in this term nothing else can be accepted.
				st.LastTerm = c.term
			}
			out[id] = st
		}
	}
	return out
}

// KnownServers implements autopilot.ApplicationIntegration. Every server of
// the configuration is known: autopilot would remove others at once.
func (p *pilot) KnownServers() map[raft.ServerID]*autopilot.Server {
	out := map[raft.ServerID]*autopilot.Server{}
	_, leader := p.s.node().LeaderWithID()
	for _, sv := range p.s.node().GetConfiguration().Configuration().Servers {
		info, _ := p.s.fsm.current.Load().servers.get(string(sv.ID))
		status := autopilot.NodeAlive
		if c, ok := p.s.peers.last(sv.ID); ok && time.Since(c.at) > p.s.cfg.DeadServerTimeout {
			status = autopilot.NodeFailed
		}
		out[sv.ID] = &autopilot.Server{
			ID: sv.ID, Name: info.Name, Address: sv.Address, NodeStatus: status, Version: info.Version,
			RaftVersion: int(raft.ProtocolVersionMax), IsLeader: sv.ID == leader, NodeType: autopilot.NodeVoter,
			Meta: map[string]string{"zone": info.Zone},
		}
	}
	return out
}

// RemoveFailedServer implements autopilot.ApplicationIntegration.
func (p *pilot) RemoveFailedServer(srv *autopilot.Server) {
	// Not on autopilot's goroutine: the removal waits for a quorum.
	p.s.loops.Go(func() {
		ctx, cancel := context.WithTimeout(p.s.ctx, p.s.cfg.WriteTimeout)
		defer cancel()
		if err := p.s.Remove(ctx, Meta{Principal: "autopilot"}, string(srv.ID)); err != nil {
			p.s.log.Warn("could not remove a dead server", "server", srv.ID, "name", srv.Name, "error", err)
			return
		}
		p.s.log.Warn("removed a dead server; it joins again if it comes back", "server", srv.ID, "name", srv.Name)
	})
}

// GetServerExt implements autopilot.Promoter.
func (p *pilot) GetServerExt(*autopilot.Config, *autopilot.ServerState) any { return nil }

// GetStateExt implements autopilot.Promoter.
func (p *pilot) GetStateExt(*autopilot.Config, *autopilot.State) any { return nil }

// GetNodeTypes implements autopilot.Promoter.
func (p *pilot) GetNodeTypes(_ *autopilot.Config, s *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	types := make(map[raft.ServerID]autopilot.NodeType, len(s.Servers))
	for id := range s.Servers {
		types[id] = autopilot.NodeVoter
	}
	return types
}

// FilterFailedServerRemovals implements autopilot.Promoter.
func (p *pilot) FilterFailedServerRemovals(_ *autopilot.Config, _ *autopilot.State, failed *autopilot.FailedServers) *autopilot.FailedServers {
	return failed
}

// IsPotentialVoter implements autopilot.Promoter.
func (p *pilot) IsPotentialVoter(t autopilot.NodeType) bool { return t == autopilot.NodeVoter }

// CalculatePromotionsAndDemotions implements autopilot.Promoter: at most one
// change at a time, promotions first, so that a majority always overlaps.
func (p *pilot) CalculatePromotionsAndDemotions(c *autopilot.Config, s *autopilot.State) autopilot.RaftChanges {
	now, stable := time.Now(), s.ServerStabilizationTime(c)
	var all []candidate
	for id, sv := range s.Servers {
		all = append(all, candidate{
			id: id, zone: sv.Server.Meta["zone"], voter: sv.HasVotingRights(), leader: id == s.Leader,
			healthy: sv.Health.Healthy, stable: sv.Health.IsStable(now, stable),
		})
	}
	promote, demote := nextVoter(all, p.s.cfg.Voters)
	switch {
	case promote != "":
		return autopilot.RaftChanges{Promotions: []raft.ServerID{promote}}
	case demote != "":
		return autopilot.RaftChanges{Demotions: []raft.ServerID{demote}}
	}
	return autopilot.RaftChanges{}
}

// candidate is a server as the choice of voters sees it.
type candidate struct {
	id              raft.ServerID
	zone            string
	voter, leader   bool
	healthy, stable bool
}

// nextVoter returns the one change that brings the voters closer to the best
// set of n: the leader first, then servers in zones with the fewest chosen,
// voters before others, and servers that fail only where nothing else is left.
func nextVoter(all []candidate, n int) (promote, demote raft.ServerID) {
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.id, b.id) })
	zones := map[string]int{}
	chosen := map[raft.ServerID]bool{}
	var order []candidate
	pick := func(eligible func(candidate) bool) bool {
		best := -1
		for i, c := range all {
			if chosen[c.id] || !eligible(c) {
				continue
			}
			if best < 0 || zones[c.zone] < zones[all[best].zone] ||
				zones[c.zone] == zones[all[best].zone] && c.voter && !all[best].voter {
				best = i
			}
		}
		if best >= 0 {
			chosen[all[best].id] = true
			order = append(order, all[best])
			zones[all[best].zone]++
		}
		return best >= 0
	}
	pick(func(c candidate) bool { return c.leader })
	for len(chosen) < n && pick(func(c candidate) bool { return c.healthy && (c.voter || c.stable) }) {
	}
	for len(chosen) < n && pick(func(c candidate) bool { return c.voter }) {
	}
	for _, c := range order {
		if !c.voter {
			return c.id, ""
		}
	}
	// Demote those that fail first.
	for _, c := range all {
		if c.voter && !chosen[c.id] && !c.healthy {
			return "", c.id
		}
	}
	for _, c := range all {
		if c.voter && !chosen[c.id] {
			return "", c.id
		}
	}
	return "", ""
}
