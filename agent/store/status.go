package store

import (
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Server is one Raft server of the cluster.
type Server struct {
	ID      string // random server id
	Name    string // RAFT_ID
	Addr    string // Raft address
	HTTP    string // base URL of its agent's API
	Zone    string
	Voter   bool
	Leader  bool
	Healthy bool
}

// Status tells how this server and its cluster are doing.
type Status struct {
	State        string // leader, follower, candidate or shutdown
	Term         uint64
	Generation   uint64
	CommitIndex  uint64
	AppliedIndex uint64 // of the last command applied here
	LastIndex    uint64 // of the log
	Leader       Server // zero if none is known
	Servers      []Server
}

// Status returns the state of consensus as this server sees it.
func (s *Store) Status() Status {
	pos := s.position()
	st := Status{
		State: strings.ToLower(s.node().State().String()), Term: s.node().CurrentTerm(),
		Generation: pos.Generation, CommitIndex: s.node().CommitIndex(), AppliedIndex: pos.Index,
		LastIndex: s.node().LastIndex(), Servers: s.Servers(),
	}
	for _, sv := range st.Servers {
		if sv.Leader {
			st.Leader = sv
		}
	}
	return st
}

// Servers returns the servers of the latest configuration, the leader marked.
func (s *Store) Servers() []Server {
	_, leader := s.node().LeaderWithID()
	var out []Server
	for _, sv := range s.node().GetConfiguration().Configuration().Servers {
		out = append(out, s.describe(sv, leader))
	}
	return out
}

func (s *Store) describe(sv raft.Server, leader raft.ServerID) Server {
	info, _ := s.fsm.current.Load().servers.get(string(sv.ID))
	return Server{
		ID: string(sv.ID), Addr: string(sv.Address), Name: info.Name, HTTP: info.HTTP, Zone: info.Zone,
		Voter: sv.Suffrage == raft.Voter, Leader: sv.ID == leader, Healthy: sv.ID == leader || s.healthy(sv.ID),
	}
}

// healthy reports whether this server has reason to believe that another one
// is there. Only the leader hears from all.
func (s *Store) healthy(id raft.ServerID) bool {
	if string(id) == s.disk.dir.id {
		return true
	}
	c, ok := s.peers.last(id)
	return ok && time.Since(c.at) < 4*s.cfg.HeartbeatTimeout
}

// Leader returns the leader as far as this server knows; its ID is empty if it
// knows none.
func (s *Store) Leader() Server {
	addr, id := s.node().LeaderWithID()
	if id == "" {
		return Server{}
	}
	for _, sv := range s.node().GetConfiguration().Configuration().Servers {
		if sv.ID == id {
			return s.describe(sv, id)
		}
	}
	return Server{ID: string(id), Addr: string(addr), Leader: true}
}

// IsLeader reports whether this server leads and takes writes.
func (s *Store) IsLeader() bool { return s.leading.Load() }

// Self returns what the others are to know of this server, for a JoinRequest.
func (s *Store) Self() ServerInfo { return s.self() }
