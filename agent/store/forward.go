package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Forwarder carries a request to the leader's Store.Serve and brings back its
// reply. It is called from any goroutine and may block until ctx is done. An
// error must wrap ErrUnavailable if the request certainly did not reach the
// leader; any other error counts as an unknown outcome.
type Forwarder interface {
	Forward(ctx context.Context, leader Server, request []byte) (reply []byte, err error)
}

// Kinds of request between servers, and fields of request and reply.
const (
	requestWrite = 1
	requestRead  = 2

	replyDone        = 0
	replyUnavailable = 1
	replyUnknown     = 2
	replyDiskFull    = 3
)

// retryPause is how long to wait before asking again who leads. leaderCheck is
// how often a forwarded request looks whether the leader it waits for is still
// the leader.
const (
	retryPause  = 25 * time.Millisecond
	leaderCheck = 100 * time.Millisecond
)

// errDeposed ends the wait for a leader after which another one came.
var errDeposed = errors.New("another server leads since")

// execute commits a command on the leader, wherever that is, and answers it
// without an entry if it would change nothing. What is certainly not done, for
// want of a leader or because it has just changed, is tried again until ctx is
// done; what may be done only if an idempotency key makes that safe.
func (s *Store) execute(ctx context.Context, c *command) (outcome, error) {
	return c.insist(func() (outcome, error) { return s.executeOnce(ctx, c) }, func(err error) bool {
		var nl *NotLeaderError
		if s.fsm.failed() != nil ||
			s.cfg.Forwarder == nil && errors.As(err, &nl) && nl.Leader.ID != "" && nl.Leader.ID != s.disk.dir.id {
			return false
		}
		return pause(ctx, s.ctx)
	})
}

// insist tries to commit the command until it is done, or certainly refused,
// or may be done and must not be done twice. After any other error pause waits,
// or reports false to give up.
func (c *command) insist(try func() (outcome, error), pause func(error) bool) (outcome, error) {
	for unknown := false; ; {
		o, err := try()
		unknown = unknown || errors.Is(err, ErrUnknown)
		again := errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown) && c.meta.IdempotencyKey != ""
		if err == nil || !again || !pause(err) {
			return o, afterAll(err, unknown)
		}
	}
}

// afterAll is what the error of the last try says of a write. That it was not
// done is only true of that try if the outcome of an earlier one is unknown.
func afterAll(err error, unknown bool) error {
	if unknown && (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrDiskFull)) {
		return fmt.Errorf("%w: an earlier try may have been done; the last one was not: %s", ErrUnknown, err.Error())
	}
	return err
}

// pause waits a moment, and reports false if the request or whoever carries it
// out ends before.
func pause(request, owner context.Context) bool {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-request.Done():
	case <-owner.Done():
	}
	return false
}

func (s *Store) executeOnce(ctx context.Context, c *command) (outcome, error) {
	if err := s.fsm.failed(); err != nil {
		return outcome{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if s.leading.Load() {
		return s.executeHere(ctx, c)
	}
	leader := s.Leader()
	if leader.ID == "" || leader.ID == s.disk.dir.id || leader.HTTP == "" || s.cfg.Forwarder == nil {
		return outcome{}, &NotLeaderError{Leader: leader}
	}
	return s.remote.write(ctx, leader, c)
}

// executeHere runs a command on this server, which leads.
func (s *Store) executeHere(ctx context.Context, c *command) (outcome, error) {
	if c.op == opCommitRestore {
		return s.propose(ctx, c) // it changes something, and is long
	}
	if o, idle := s.rehearse(c); idle {
		// It would change nothing here. That is only the truth if this server
		// still leads and has applied all that is committed.
		if err := s.barrier(ctx); err != nil {
			return outcome{}, err
		}
		if o, idle = s.rehearse(c); idle {
			if s.audit != nil {
				s.audit.idle(c, &o)
			}
			return o, nil
		}
	}
	return s.propose(ctx, c)
}

// remote carries requests to a leader that is another process.
type remote struct {
	forwarder Forwarder
	leader    func() Server // as far as is known now
	cluster   func() string // id of the cluster, empty if it is not known
}

// write has the leader run a command.
func (r *remote) write(ctx context.Context, leader Server, c *command) (outcome, error) {
	p, err := r.ask(ctx, leader, requestWrite, string(c.append(nil)))
	if err != nil {
		return outcome{}, err
	}
	o, err := decodeOutcome(p.str[3])
	if err != nil {
		return outcome{}, fmt.Errorf("%w: reply of the leader at %s: %w", ErrUnknown, leader.HTTP, err)
	}
	return o, nil
}

// read returns a position that no write which was acknowledged before is beyond.
func (r *remote) read(ctx context.Context, leader Server) (record.Position, error) {
	p, err := r.ask(ctx, leader, requestRead, "")
	return record.Position{Generation: p.num[4], Index: p.num[5]}, err
}

// ask sends one request to the leader.
func (r *remote) ask(ctx context.Context, leader Server, kind uint64, body string) (parts, error) {
	b := record.AppendString(record.AppendUint(nil, 1, kind), 2, body)
	b = record.AppendString(b, 3, r.cluster())
	ctx, done := r.whileLeading(ctx, leader)
	defer done()
	reply, err := r.forwarder.Forward(ctx, leader, b)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errDeposed) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		if errors.Is(err, ErrUnavailable) {
			return parts{}, fmt.Errorf("forward to the leader at %s: %w", leader.HTTP, err)
		}
		return parts{}, fmt.Errorf("%w: forward to the leader at %s: %w", ErrUnknown, leader.HTTP, err)
	}
	p, err := readParts(string(reply))
	if err != nil {
		return parts{}, fmt.Errorf("%w: reply of the leader at %s: %w", ErrUnknown, leader.HTTP, err)
	}
	switch p.num[1] {
	case replyDone:
		return p, nil
	case replyUnavailable:
		return p, fmt.Errorf("%w: leader: %s", ErrUnavailable, p.str[2])
	case replyDiskFull:
		return p, fmt.Errorf("%w: leader: %s", ErrDiskFull, p.str[2])
	}
	return p, fmt.Errorf("%w: leader: %s", ErrUnknown, p.str[2])
}

// whileLeading returns a context that ends a moment after another server than
// leader is known to lead: a frozen or cut leader never answers. The moment is
// for answers on their way, which a planned change of the leader lets through.
func (r *remote) whileLeading(ctx context.Context, leader Server) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		t := time.NewTicker(leaderCheck)
		defer t.Stop()
		for deposed := false; ; {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			now := r.leader().ID
			other := now != "" && now != leader.ID
			if other && deposed {
				cancel(errDeposed)
				return
			}
			deposed = other
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Serve answers a request that another server's Forwarder brought. The error
// is for bytes that are no request; everything else is in the reply.
func (s *Store) Serve(ctx context.Context, request []byte) (reply []byte, err error) {
	p, err := readParts(string(request))
	if err != nil {
		return nil, refuse(ErrInvalid, "forwarded request: %v", err)
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	if own := s.State().ClusterID(); p.str[3] != "" && own != "" && p.str[3] != own {
		return failure(fmt.Errorf("%w: %w: the request is from cluster %s, this is cluster %s", ErrUnavailable, ErrOtherCluster, p.str[3], own)), nil
	}
	if !s.leading.Load() {
		return failure(&NotLeaderError{Leader: s.Leader()}), nil
	}
	switch p.num[1] {
	case requestWrite:
		c, err := decodeCommand(p.str[2])
		if err != nil {
			return nil, refuse(ErrInvalid, "forwarded request: %v", err)
		}
		if c.op == opCommitRestore {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(whole, restoreTime)
			defer cancel()
		}
		o, err := s.executeHere(ctx, &c)
		if err != nil {
			return failure(err), nil
		}
		return record.AppendElem(nil, 3, o.append(nil)), nil
	case requestRead:
		pos, err := s.readHere(ctx)
		if err != nil {
			return failure(err), nil
		}
		return record.AppendUint(record.AppendUint(nil, 4, pos.Generation), 5, pos.Index), nil
	}
	return nil, refuse(ErrInvalid, "forwarded request of kind %d", p.num[1])
}

func failure(err error) []byte {
	code := uint64(replyUnknown)
	switch {
	case errors.Is(err, ErrDiskFull):
		code = replyDiskFull
	case errors.Is(err, ErrUnavailable):
		code = replyUnavailable
	}
	if r, ok := errors.AsType[*refusal](err); ok { // refused before it became an entry
		o := outcome{err: r}
		return record.AppendElem(nil, 3, o.append(nil))
	}
	return record.AppendString(record.AppendUint(nil, 1, code), 2, err.Error())
}

// Linearizable returns a State that holds every write that was acknowledged
// before the call, on any server. It costs a round of messages to a quorum,
// and one more to the leader on other servers.
func (s *Store) Linearizable(ctx context.Context) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	for {
		pos, err := s.readPosition(ctx)
		if err == nil {
			err = s.WaitApplied(ctx, pos)
		}
		if err == nil {
			return s.State(), nil
		}
		var nl *NotLeaderError
		if s.cfg.Forwarder == nil && errors.As(err, &nl) && nl.Leader.ID != "" && nl.Leader.ID != s.disk.dir.id {
			return State{}, err
		}
		if !pause(ctx, s.ctx) {
			return State{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// readPosition returns a position that no acknowledged write is beyond.
func (s *Store) readPosition(ctx context.Context) (record.Position, error) {
	if s.leading.Load() {
		return s.readHere(ctx)
	}
	leader := s.Leader()
	if leader.ID == "" || leader.ID == s.disk.dir.id || leader.HTTP == "" || s.cfg.Forwarder == nil {
		return record.Position{}, &NotLeaderError{Leader: leader}
	}
	return s.remote.read(ctx, leader)
}

func (s *Store) readHere(ctx context.Context) (record.Position, error) {
	if err := s.barrier(ctx); err != nil {
		return record.Position{}, err
	}
	return s.position(), nil
}
