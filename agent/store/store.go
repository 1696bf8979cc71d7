package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Store is one Raft server: its log, its state machine and its membership.
type Store struct {
	writes
	remote remote

	cfg   Config
	log   *slog.Logger
	disk  *disk
	peers *peers
	raft  atomic.Pointer[raft.Raft] // replaced by restart; see node
	fsm   *fsm
	audit *auditLog // nil if there is none

	leaderCh   chan bool
	leading    atomic.Bool // the leader, and the cluster is made
	queue      *proposals
	proposals  sync.Pool    // of *proposal that are answered
	rehearsals sync.Pool    // of *txn
	roomAt     atomic.Int64 // when the disk last had room, in ns since the Unix epoch

	// What acknowledged writes and linearizable reads rest on. Tests replace
	// them with wrong ones and see that they are found out.
	verify    func(context.Context) error
	committed func(raft.ApplyFuture, []*proposal) (any, error)

	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	loops     sync.WaitGroup
	stopped   chan struct{} // closed when the state machine stops
	changing  lock          // one change of the configuration at a time
	gate      gate          // of requests to Raft
	starting  lock          // Raft is started and stopped by one at a time
	restarts  atomic.Uint64
	closeOnce sync.Once
	closeErr  error
}

func newStore(cfg Config, d *disk, p *peers) *Store {
	s := &Store{
		cfg: cfg, log: cfg.Logger, disk: d, peers: p, fsm: newFSM(),
		leaderCh: make(chan bool, 16), queue: newProposals(),
		stopped: make(chan struct{}), changing: newLock(), starting: newLock(),
	}
	s.writes = writes{timeout: cfg.WriteTimeout, execute: s.execute}
	s.remote = remote{forwarder: cfg.Forwarder, leader: s.Leader, cluster: func() string { return s.State().ClusterID() }}
	s.verify = s.verifyLeader
	s.committed = func(f raft.ApplyFuture, _ []*proposal) (any, error) {
		if err := f.Error(); err != nil {
			return nil, err
		}
		return f.Response(), nil
	}
	if cfg.planted != nil {
		cfg.planted(s)
	}
	d.log.guard.stalled = s.onStall
	s.fsm.stuck = func() {
		s.loops.Go(func() { s.restart("the same snapshot is installed over and over") })
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.fsm.mark, s.fsm.warm = d.mark, d.warm
	s.fsm.current.Store(d.state)
	s.fsm.stop = func(err error) {
		s.log.Error("state machine stopped; the state stays readable, writes are refused", "error", err)
		close(s.stopped)
		go s.halt() // not on Raft's goroutine, which it waits for
	}
	return s
}

func (s *Store) startLoops() {
	s.loops.Go(s.leaderLoop)
	s.loops.Go(s.proposeLoop)
	s.loops.Go(s.announceLoop)
	s.hasten()
}

// Close hands leadership to another server if there is one, stops Raft and
// closes the files. It blocks until all of it is done; later calls return what
// the first one did.
func (s *Store) Close() error { return s.close(true) }

func (s *Store) close(handOver bool) error {
	s.closeOnce.Do(func() {
		if handOver && s.node().State() == raft.Leader && len(s.voters()) > 1 {
			if err := s.Transfer(s.ctx, ""); err != nil {
				s.log.Warn("could not hand over leadership before stopping", "error", err)
			}
		}
		s.cancel()
		s.disk.log.guard.release()
		s.starting.acquire()
		s.gate.shut()
		err := s.node().Shutdown().Error()
		s.starting.release()
		s.loops.Wait()
		s.closeErr = errors.Join(err, s.peers.shut(), s.disk.close(), s.closeAudit())
	})
	return s.closeErr
}

// halt stops Raft, so that a server that does not apply does not lead either.
func (s *Store) halt() {
	s.starting.acquire()
	defer s.starting.release()
	s.gate.shut()
	if err := s.node().Shutdown().Error(); err != nil {
		s.log.Error("could not stop raft", "error", err)
	}
}

func (s *Store) closeAudit() error {
	if s.audit == nil {
		return nil
	}
	return s.audit.close()
}

// node returns the running Raft.
func (s *Store) node() *raft.Raft { return s.raft.Load() }

// ServerID returns the random id of this server's data directory.
func (s *Store) ServerID() string { return s.disk.dir.id }

// State returns what this server has applied.
func (s *Store) State() State { return s.fsm.state() }

// Changed returns a channel that is closed once the position of State is
// beyond after; at once if it is already.
func (s *Store) Changed(after record.Position) <-chan struct{} { return s.fsm.changedAfter(after) }

// Stopped is closed when the state machine has stopped, see Err.
func (s *Store) Stopped() <-chan struct{} { return s.stopped }

// Err returns why the state machine stopped, wrapping ErrStopped, or nil.
func (s *Store) Err() error { return s.fsm.failed() }

// WaitApplied blocks until this server has applied pos, or ctx is done.
func (s *Store) WaitApplied(ctx context.Context, pos record.Position) error {
	if pos.IsZero() {
		return nil
	}
	before := pos
	before.Index--
	select {
	case <-s.Changed(before):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for position %s: %w", pos, ctx.Err())
	case <-s.ctx.Done():
		return ErrClosed
	}
}

// hasten makes the only voter of a cluster a leader at once, instead of after
// a heartbeat timeout: nobody else could be.
func (s *Store) hasten() {
	voters := s.voters()
	if len(voters) != 1 || string(voters[0].ID) != s.disk.dir.id {
		return
	}
	// Not one of the loops: if Raft stops meanwhile, the call ends by the
	// transport's own timeout, and Close need not wait for that.
	go func() {
		var resp raft.TimeoutNowResponse
		// If this fails, the election comes by itself.
		_ = s.peers.TimeoutNow(voters[0].ID, s.peers.LocalAddr(), &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax,
			ID:              []byte(s.disk.dir.id), Addr: s.peers.EncodePeer(voters[0].ID, s.peers.LocalAddr()),
		}}, &resp)
	}()
}

func (s *Store) voters() []raft.Server {
	var voters []raft.Server
	for _, sv := range s.node().GetConfiguration().Configuration().Servers {
		if sv.Suffrage == raft.Voter {
			voters = append(voters, sv)
		}
	}
	return voters
}

// leaderLoop follows this server's leadership.
func (s *Store) leaderLoop() {
	var stop func()
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for {
		select {
		case lead := <-s.leaderCh:
			if stop != nil {
				stop()
				stop = nil
			}
			if lead {
				stop = s.lead()
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// lead starts a leader's duties and returns what ends them.
func (s *Store) lead() (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.takeOffice(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.Error("could not take up leadership", "error", err)
			}
			return
		}
		s.leading.Store(true)
		s.log.Info("leading the cluster", "cluster", s.State().ClusterID(), "position", s.position())
		wg.Go(func() { s.runAutopilot(ctx) })
		s.expireLoop(ctx)
	})
	return func() {
		s.leading.Store(false)
		cancel()
		wg.Wait()
	}
}

// takeOffice waits until everything earlier leaders committed is applied here,
// makes the cluster if it is new, and commits what is to know of this server.
func (s *Store) takeOffice(ctx context.Context) error {
	if err := s.request(ctx, func(r *raft.Raft) raft.Future { return r.Barrier(0) }); err != nil {
		return err
	}
	if !s.State().Initialized() {
		var seed [32]byte
		_, _ = rand.Read(seed[:]) // never fails
		o, err := s.propose(ctx, &command{op: opInit, values: []string{string(seed[:])}})
		if err != nil {
			return fmt.Errorf("make cluster: %w", err)
		}
		if o.err != nil && !errors.Is(o.err, ErrConflict) {
			return fmt.Errorf("make cluster: %w", o.err)
		}
	}
	return s.putServer(ctx, Meta{}, s.self())
}

// self is what the others are to know of this server.
func (s *Store) self() ServerInfo {
	return ServerInfo{
		ID: s.disk.dir.id, Name: s.cfg.Name, HTTP: s.cfg.HTTP, Zone: s.cfg.Zone, Version: s.cfg.Version,
		Protocol: uint64(opLast),
	}
}

// expireLoop commits the end of instances and overlays that expire, while this
// server leads.
func (s *Store) expireLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		st := s.fsm.current.Load()
		wait := time.Hour
		if k, ok := st.expiry.least(); ok {
			ms, _ := split(k)
			wait = time.Until(time.UnixMilli(int64(min(ms, 1<<52))))
		}
		if wait <= 0 {
			if _, err := s.propose(ctx, &command{op: opExpire}); err != nil {
				wait = time.Second // lost leadership or no quorum
			} else {
				continue
			}
		}
		timer.Reset(min(wait, time.Hour))
		select {
		case <-timer.C:
		case <-s.Changed(st.pos):
		case <-ctx.Done():
			return
		}
	}
}
