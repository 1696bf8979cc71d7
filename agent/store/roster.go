package store

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/hashicorp/raft"
)

// Members yields the roster: the DNS servers whose applied positions count for
// "applied everywhere", in order of id.
func (st State) Members() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for _, m := range st.s.members.all() {
			if !yield(m) {
				return
			}
		}
	}
}

// Member returns a DNS server of the roster.
func (st State) Member(id string) (Member, bool) { return st.s.members.get(id) }

// PutMembers adds DNS servers to the roster, or renames them. It writes
// nothing if all are there already, so it may be called as often as one is seen.
func (w *writes) PutMembers(ctx context.Context, m Meta, members []Member) error {
	c := &command{op: opPutMember, meta: m}
	for i := range members {
		if members[i].ID == "" {
			return refuse(ErrInvalid, "member: its id is missing")
		}
		members[i].Since = 0
		c.values = append(c.values, string(members[i].append(nil)))
	}
	if len(c.values) == 0 {
		return nil
	}
	_, err := w.writeOne(ctx, c, Result{})
	return err
}

// ForgetMember removes a DNS server from the roster, because it left or will
// not come back. It returns ErrNotFound if it is not there.
func (w *writes) ForgetMember(ctx context.Context, m Meta, id string) error {
	_, err := w.writeOne(ctx, &command{op: opRemoveMember, meta: m, target: id}, Result{})
	return err
}

// baseProtocol is the greatest command type of the first version. Servers of
// that version may be in the cluster before what they understand is committed.
const baseProtocol = opCommitRestore

// allowed refuses a command type that some server does not understand: it
// would stop that server's state machine.
func (s *Store) allowed(o op) error {
	if o <= baseProtocol {
		return nil
	}
	infos := s.fsm.current.Load().servers
	for _, sv := range s.node().GetConfiguration().Configuration().Servers {
		info, ok := infos.get(string(sv.ID))
		if known := max(op(info.Protocol), baseProtocol); !ok || known < o {
			return refuse(ErrConflict, "command %s is not understood by server %s (%s), version %s; upgrade every server first",
				o, sv.ID, info.Name, info.Version)
		}
	}
	return nil
}

// announceLoop tells the cluster what this server is, when that differs from
// what is committed: after an upgrade, or under a new address.
func (s *Store) announceLoop() {
	t := time.NewTicker(s.cfg.WriteTimeout)
	defer t.Stop()
	for {
		me := s.self()
		if known, ok := s.fsm.current.Load().servers.get(me.ID); s.isServer() && (!ok || known != me) {
			ctx, cancel := context.WithTimeout(s.ctx, s.cfg.WriteTimeout)
			o, err := s.execute(ctx, &command{op: opPutServer, values: []string{string(me.append(nil))}})
			cancel()
			if err == nil {
				err = o.err
			}
			if err != nil && s.ctx.Err() == nil {
				s.log.Debug("could not announce this server yet", "error", err)
			}
		}
		select {
		case <-t.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// isServer reports whether this server is in the cluster's configuration.
func (s *Store) isServer() bool {
	for _, sv := range s.node().GetConfiguration().Configuration().Servers {
		if string(sv.ID) == s.disk.dir.id {
			return true
		}
	}
	return false
}

// LastContact returns when this server last knew that it had everything that
// was committed then: now on the leader, else when it last heard of the leader.
// It is the zero time if it never did. The state read afterwards is at most so
// much older plus the time that entries take to arrive.
func (s *Store) LastContact() time.Time {
	if s.node().State() == raft.Leader {
		return time.Now()
	}
	return s.node().LastContact()
}

// Stale returns the State if this server heard of the leader within maxAge,
// else an error that wraps ErrUnavailable.
func (s *Store) Stale(maxAge time.Duration) (State, error) {
	last := s.LastContact()
	if last.IsZero() {
		return State{}, fmt.Errorf("%w: this server has not heard of a leader yet", ErrUnavailable)
	}
	if age := time.Since(last); age > maxAge {
		return State{}, fmt.Errorf("%w: this server heard of the leader %s ago, more than %s", ErrUnavailable, age.Round(time.Millisecond), maxAge)
	}
	return s.State(), nil
}
