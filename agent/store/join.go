package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// JoinRequest asks the leader to add a server.
type JoinRequest struct {
	ServerInfo
	// Addr is the Raft address at which the leader reaches the server.
	Addr string
	// ClusterID is the cluster that the server has state of; empty if none.
	ClusterID string
	// Auto asks only for a place if there are fewer than MaxServers.
	Auto bool
}

// JoinReply tells a server what it joined.
type JoinReply struct {
	ClusterID string
	Servers   []Server
}

// ErrFull is returned by Join when the cluster has enough servers; the agent
// then runs as a client.
var ErrFull = errors.New("the cluster has enough servers")

// Join adds a server to the cluster as a non-voter; autopilot makes it a voter
// when it has caught up. Only the leader can: others return a *NotLeaderError.
// Joining again with the same id and address changes nothing.
//
// A server of the same name or address under another id is one that has lost
// its disk: the old one is removed, and the removal committed, before the new
// one is added, so that no server ever votes for what its predecessor had
// acknowledged and it has not. If the old one still answers under its id, the
// request is refused with ErrConflict: two servers would share a name.
func (s *Store) Join(ctx context.Context, m Meta, req JoinRequest) (JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	if err := s.barrier(ctx); err != nil {
		return JoinReply{}, err
	}
	id := s.State().ClusterID()
	if req.ClusterID != "" && req.ClusterID != id {
		return JoinReply{}, fmt.Errorf("%w: the server has state of cluster %s, this is cluster %s; wipe it with fluid-agent reset if it is to join here",
			ErrOtherCluster, req.ClusterID, id)
	}
	if req.ID == "" || req.Addr == "" || req.Name == "" {
		return JoinReply{}, refuse(ErrInvalid, "join: id, name and address are needed")
	}
	if err := s.changing.acquireContext(ctx); err != nil {
		return JoinReply{}, fmt.Errorf("%w: another server is joining or leaving: %w", ErrUnavailable, err)
	}
	defer s.changing.release()
	present, err := s.admit(ctx, m, req)
	if err != nil {
		return JoinReply{}, err
	}
	if err := s.putServer(ctx, m, req.ServerInfo); err != nil {
		return JoinReply{}, err
	}
	if !present {
		if err := s.change(ctx, func(r *raft.Raft) raft.Future {
			return r.AddNonvoter(raft.ServerID(req.ID), raft.ServerAddress(req.Addr), 0, s.cfg.WriteTimeout)
		}); err != nil {
			return JoinReply{}, fmt.Errorf("add server: %w", err)
		}
		s.log.Info("added a server", "server", req.ID, "name", req.Name, "addr", req.Addr)
	}
	return JoinReply{ClusterID: id, Servers: s.Servers()}, nil
}

// admit checks a request against the configuration and removes the servers
// that the new one replaces. It reports whether the server is present already
// at that address.
func (s *Store) admit(ctx context.Context, m Meta, req JoinRequest) (present bool, err error) {
	servers := s.Servers()
	var replaced []Server
	known := false // under its id; at another address it has moved, which Raft can take
	for _, sv := range servers {
		switch {
		case sv.ID == req.ID && sv.Addr == req.Addr:
			return true, nil
		case sv.ID == req.ID:
			known = true
		case sv.Name == req.Name || sv.Addr == req.Addr:
			replaced = append(replaced, sv)
		}
	}
	if req.Auto && !known && len(replaced) == 0 && len(servers) >= s.cfg.MaxServers {
		return false, fmt.Errorf("%w: there are %d", ErrFull, len(servers))
	}
	if err := s.probe(ctx, Server{ID: req.ID, Name: req.Name, Addr: req.Addr}); err != nil {
		return false, refuse(ErrConflict, "address: the leader cannot reach server %s at %s: %v; give an address that other hosts can reach with RAFT_ADVERTISE", req.ID, req.Addr, err)
	}
	for _, sv := range replaced {
		if sv.ID == s.disk.dir.id {
			return false, refuse(ErrConflict, "name: %q at %s is the leader; give the new server its own RAFT_ID and address", sv.Name, sv.Addr)
		}
		if sv.Addr != req.Addr && s.cfg.Probe != nil && s.probe(ctx, sv) == nil {
			return false, refuse(ErrConflict, "name: %q is taken by the server at %s, which is alive; give the new server its own RAFT_ID", sv.Name, sv.Addr)
		}
		if err := s.remove(ctx, m, sv.ID); err != nil {
			return false, fmt.Errorf("remove the server that %s replaces: %w", req.Name, err)
		}
		s.log.Warn("removed a server that came back without its disk", "server", sv.ID, "name", sv.Name, "replacement", req.ID)
	}
	return false, nil
}

func (s *Store) probe(ctx context.Context, sv Server) error {
	if s.cfg.Probe == nil {
		return nil
	}
	return s.cfg.Probe(ctx, sv)
}

// putServer commits what is to know of a server, unless it is known.
func (s *Store) putServer(ctx context.Context, m Meta, info ServerInfo) error {
	if known, ok := s.fsm.current.Load().servers.get(info.ID); ok && known == info {
		return nil
	}
	o, err := s.propose(ctx, &command{op: opPutServer, meta: Meta{Principal: m.Principal, Remote: m.Remote}, values: []string{string(info.append(nil))}})
	if err == nil {
		err = o.err
	}
	return err
}

// Remove removes a server from the cluster. Only the leader can.
func (s *Store) Remove(ctx context.Context, m Meta, id string) error {
	if err := s.barrier(ctx); err != nil {
		return err
	}
	if err := s.changing.acquireContext(ctx); err != nil {
		return fmt.Errorf("%w: another server is joining or leaving: %w", ErrUnavailable, err)
	}
	defer s.changing.release()
	return s.remove(ctx, m, id)
}

func (s *Store) remove(ctx context.Context, m Meta, id string) error {
	found := false
	for _, sv := range s.node().GetConfiguration().Configuration().Servers {
		found = found || string(sv.ID) == id
	}
	voters := s.voters()
	switch {
	case !found:
		return refuse(ErrNotFound, "server %s is not in the cluster", id)
	case len(voters) == 1 && string(voters[0].ID) == id:
		return refuse(ErrConflict, "server %s is the only voter; let another join and be promoted first", id)
	}
	if err := s.change(ctx, func(r *raft.Raft) raft.Future {
		return r.RemoveServer(raft.ServerID(id), 0, s.cfg.WriteTimeout)
	}); err != nil {
		return fmt.Errorf("remove server: %w", err)
	}
	o, err := s.propose(ctx, &command{op: opRemoveServer, meta: Meta{Principal: m.Principal, Remote: m.Remote}, target: id})
	if err == nil && o.err != nil && !errors.Is(o.err, ErrNotFound) {
		err = o.err
	}
	return err
}

// Transfer hands leadership to the server with the id, or to the best one if
// it is empty. Only the leader can.
func (s *Store) Transfer(ctx context.Context, id string) error {
	if !s.leading.Load() {
		return &NotLeaderError{Leader: s.Leader()}
	}
	voters := s.voters()
	switch {
	case id == s.ServerID():
		return refuse(ErrConflict, "server %s leads already", id)
	case id == "" && len(voters) < 2:
		return refuse(ErrConflict, "no other server is a voter that could lead")
	case id == "":
		return s.change(ctx, func(r *raft.Raft) raft.Future { return r.LeadershipTransfer() })
	}
	for _, sv := range voters {
		if string(sv.ID) == id {
			return s.change(ctx, func(r *raft.Raft) raft.Future {
				return r.LeadershipTransferToServer(sv.ID, sv.Address)
			})
		}
	}
	return refuse(ErrNotFound, "server %s is not a voter of the cluster", id)
}

// change waits for a change of configuration or leadership.
func (s *Store) change(ctx context.Context, ask func(*raft.Raft) raft.Future) error {
	if err := s.request(ctx, ask); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return s.outcomeOf(err)
	}
	return nil
}
