package agent

import (
	"fmt"
	"time"

	"github.com/fluid-sd/fluid/agent/api"
)

// raft describes consensus for the HTTP interface.
func (a *Agent) raft() api.Raft {
	st := a.store.Status()
	out := api.Raft{
		State: st.State, Term: st.Term, Generation: st.Generation, CommitIndex: st.CommitIndex,
		AppliedIndex: st.AppliedIndex, ClusterID: a.store.State().ClusterID(),
		Leader:  api.RaftLeader{ID: st.Leader.ID, Name: st.Leader.Name, Addr: st.Leader.Addr, HTTP: st.Leader.HTTP},
		Servers: make([]api.RaftServer, len(st.Servers)), Self: a.joinRequest(), Time: time.Now(),
	}
	for i, s := range st.Servers {
		out.Servers[i] = api.RaftServerOf(s)
	}
	return out
}

// ready says why the agent is not ready, and what an operator should look at.
// A lost quorum is no reason: reads and DNS go on.
func (a *Agent) ready() (reasons []string, checks map[string]string) {
	st := a.store.State()
	checks = map[string]string{
		"state":     st.Position().String(),
		"instances": fmt.Sprint(st.Instances()),
		"dns":       fmt.Sprintf("%d connected", a.connected()),
		"leader":    "none known: writes are refused, DNS goes on",
	}
	if l := a.store.Leader(); l.ID != "" {
		checks["leader"] = l.Name
	}
	a.certs.checks(checks)
	if a.copies != nil {
		checks["snapshot copies"] = a.copies.check()
	}
	switch {
	case st.Initialized():
	case a.cfg.ShouldBootstrap():
		reasons = append(reasons, "no state yet: the cluster is being formed")
	case a.cfg.Raft.JoinURL != "":
		why := "no state yet: joining through " + a.cfg.Raft.JoinURL
		if p := a.joinErr.Load(); p != nil {
			why += ": " + *p
		}
		reasons = append(reasons, why)
	default:
		reasons = append(reasons, "no state yet: this agent is not part of a cluster; set RAFT_BOOTSTRAP=true or RAFT_JOIN_URL")
	}
	if err := a.store.Err(); err != nil {
		checks["store"] = err.Error()
		reasons = append(reasons, err.Error())
	}
	return reasons, checks
}
