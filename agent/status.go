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
	if a.isClient() {
		out.ClusterID = a.clusterID()
		out.Follows, _ = a.follower.follows()
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
		"role":      roleServer,
	}
	if l := a.store.Leader(); l.ID != "" {
		checks["leader"] = l.Name
	}
	a.certs.checks(checks)
	if a.copies != nil {
		checks["snapshot copies"] = a.copies.check()
	}
	if a.isClient() {
		return a.clientReady(checks)
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

// clientReady completes ready for a client. One that follows nobody is ready all
// the same, as a server without a quorum is.
func (a *Agent) clientReady(checks map[string]string) ([]string, map[string]string) {
	url, why := a.follower.follows()
	switch {
	case url != "":
		checks["role"] = "client, follows " + url
	case why != nil:
		checks["role"] = "client, follows nobody: " + why.Error()
	default:
		checks["role"] = "client, follows nobody yet"
	}
	if a.cfg.Raft.CopiesDir != "" {
		checks["snapshot copies"] = "none: a client has no whole state"
	}
	if a.store.State().Initialized() {
		return nil, checks
	}
	reason := "no state yet: looking for a server"
	if url != "" {
		reason = "no state yet: following " + url
	} else if why != nil {
		reason += ": " + why.Error()
	}
	return []string{reason}, checks
}
