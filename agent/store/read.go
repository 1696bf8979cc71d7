package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// barrier returns when everything that was committed before the call is
// applied here, and this server was the leader at some moment during it.
//
// Raft knows no read index; the order of the steps is what makes it one. The
// commit index is read before leadership is verified, and the term must be the
// same afterwards: a server that was deposed and elected again in between may
// have read the index of its earlier term. Reading is safe in a term only once
// an entry of the term is committed, which takeOffice waits for.
func (s *Store) barrier(ctx context.Context) error {
	if !s.leading.Load() {
		return &NotLeaderError{Leader: s.Leader()}
	}
	term := s.node().CurrentTerm()
	index := s.node().CommitIndex()
	if err := s.verify(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: verify leadership: %w", ErrUnavailable, err)
		}
		return fmt.Errorf("%w: verify leadership: %w", &NotLeaderError{Leader: s.Leader()}, err)
	}
	if s.node().CurrentTerm() != term || !s.leading.Load() {
		return &NotLeaderError{Leader: s.Leader()}
	}
	return s.waitIndex(ctx, index)
}

// waitIndex blocks until the state machine has applied every command up to a
// committed index. Raft's own AppliedIndex tells what was queued for the state
// machine, not what it has done; and of the entries in between only commands
// reach it.
func (s *Store) waitIndex(ctx context.Context, index uint64) error {
	st := s.fsm.current.Load()
	for i := index; i > st.pos.Index; i-- {
		var l raft.Log
		if err := s.disk.log.GetLog(i, &l); err != nil {
			if errors.Is(err, raft.ErrLogNotFound) {
				break // below a snapshot, which Raft restores before it goes on
			}
			return fmt.Errorf("%w: read log entry %d: %w", ErrUnavailable, i, err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		before := st.pos
		before.Index = i - 1
		select {
		case <-s.Changed(before):
			return nil
		case <-s.stopped:
			return fmt.Errorf("%w: %w", ErrUnavailable, s.Err())
		case <-ctx.Done():
			return fmt.Errorf("%w: wait for index %d: %w", ErrUnavailable, i, ctx.Err())
		}
	}
	return nil
}

// verifyLeader returns nil if a majority of the voters took this server for
// the leader of its term at some moment during the call.
//
// Raft's own VerifyLeader is not enough in 1.8.0: it counts the answers of
// non-voters, so that a leader that is cut off together with its standbys
// takes them for a quorum, and it counts answers to requests that were sent
// before the call. It serves to send heartbeats at once.
func (s *Store) verifyLeader(ctx context.Context) error {
	term, start := s.node().CurrentTerm(), s.peers.sent.Load()
	voters := s.voters()
	if err := s.request(ctx, func(r *raft.Raft) raft.Future { return r.VerifyLeader() }); err != nil {
		return err
	}
	t := time.NewTicker(s.cfg.LeaseTimeout)
	defer t.Stop()
	for {
		n, news := s.peers.acceptedSince(voters, start, term)
		if n+1 > len(voters)/2 { // and this server itself
			return nil
		}
		select {
		case <-news:
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.node().State() != raft.Leader || s.node().CurrentTerm() != term {
			return raft.ErrNotLeader
		}
	}
}
