package feed

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
	"github.com/fluid-sd/fluid/plugin/record"
)

type syncStream = grpc.BidiStreamingServer[feedpb.ClientFrame, feedpb.ServerFrame]

// Sync is one session. gRPC calls it on a goroutine of its own.
func (s *Server) Sync(stream syncStream) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("feed session panicked", "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "panic")
		}
	}()
	err = s.session(stream)
	var refused *refusedError
	if !errors.As(err, &refused) {
		return err
	}
	s.refused.Add(1)
	s.cfg.Logger.Warn("feed client refused", "reason", refused.msg)
	out := &feedpb.Refused{Message: refused.msg}
	for _, r := range reasons {
		if errors.Is(refused, r.err) {
			out.Reason = r.reason
		}
	}
	return stream.Send(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Refused{Refused: out}})
}

// session is the state of one client, owned by the goroutine of Sync.
type session struct {
	*Server
	stream  syncStream
	member  *Member // its entry; owned by members
	cluster string  // the cluster that the client belongs to, "" until known
	at      record.Position
	full    bool // the client wants a snapshot
	started bool // the first state was sent, or found to be there
	behind  bool // the last heartbeat said so
	relay   Relay
	have    Vector
	version uint64
}

func (s *Server) session(stream syncStream) error {
	var cred peerCred
	if p, ok := peer.FromContext(stream.Context()); ok {
		cred, _ = p.AuthInfo.(peerCred)
	}
	if err := s.cfg.Peers.check(cred, s.group.Load()); err != nil {
		return refuse(ErrPeer, "%v", err)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return refuse(ErrBusy, "%d clients are connected, which is the limit", s.cfg.MaxClients)
	}

	in := &inbox{stream: stream, hello: make(chan *feedpb.ClientFrame, 1), accepted: make(chan func(*feedpb.Ack), 1)}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	s.wg.Go(func() { in.receive(ctx, cancel) })

	hello, err := s.hello(ctx, in.hello)
	if err != nil {
		return err
	}
	v, err := vector(hello.GetVector())
	if err != nil {
		return refuse(ErrInvalid, "%v", err)
	}
	c := &session{
		Server: s, stream: stream, cluster: hello.GetClusterId(),
		at: position(hello.GetPosition()), full: hello.GetFull(), have: v,
	}
	if hello.GetRelay() {
		c.relay = s.cfg.Relay
	}
	m := Member{
		ID: hello.GetMemberId(), Name: hello.GetName(), Version: hello.GetVersion(), Zones: hello.GetZones(),
		Relay: c.relay != nil, Applied: position(hello.GetApplied()), ClientTTL: duration(hello.GetClientTtlMs()), UID: cred.uid, PID: cred.pid,
	}
	c.member = s.members.connect(m, !s.known().Before(m.Applied))
	if c.member == nil {
		return refuse(ErrBusy, "member %s is connected already; two CoreDNS processes must not share a snapshot file or member id", shown(m.ID))
	}
	defer s.members.disconnect(c.member)
	in.accepted <- c.ack
	if err := c.send(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Welcome{Welcome: &feedpb.Welcome{
		Protocol:       min(ProtocolMax, hello.GetProtocolMax()),
		Version:        s.cfg.Version,
		Implementation: s.cfg.Implementation,
		HeartbeatMs:    uint32(millis(s.cfg.Heartbeat)),
		Relay:          c.relay != nil,
	}}}); err != nil {
		return err
	}
	s.sessions.Add(1)
	s.cfg.Logger.Info("feed client connected", "member", m.ID, "position", c.at)
	err = c.run(ctx)
	s.cfg.Logger.Info("feed client gone", "member", m.ID, "position", c.at, "error", err)
	return err
}

// known is the highest position that can have been committed.
func (s *Server) known() record.Position {
	pos, commit := s.cfg.Source.State().Position(), s.cfg.Source.Status().Commit
	if pos.Before(commit) {
		return commit
	}
	return pos
}

// run sends the client the difference between what it has and what there is,
// for as long as it is there.
func (c *session) run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Heartbeat)
	defer tick.Stop()
	if err := c.heartbeat(); err != nil {
		return err
	}
	for {
		// Changed is asked about what was looked at, so that no change is missed.
		state := c.cfg.Source.State()
		after := state.Position()
		if err := c.update(state); err != nil {
			return err
		}
		var more <-chan struct{}
		if c.relay != nil {
			if err := c.gossip(); err != nil {
				return err
			}
			more = c.relay.Changed(c.version)
		}
		select {
		case <-c.cfg.Source.Changed(after):
		case <-more:
		case <-tick.C:
			if err := c.heartbeat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.ctx.Done():
			return status.Error(codes.Unavailable, "the agent stops")
		}
		// A steady flow of changes must not starve heartbeats.
		select {
		case <-tick.C:
			if err := c.heartbeat(); err != nil {
				return err
			}
		default:
		}
	}
}

// update brings the client to state, if that is newer than what it has.
func (c *session) update(state State) error {
	pos := state.Position()
	if err := c.checkCluster(state); err != nil {
		return err
	}
	switch {
	case pos.IsZero():
		return nil
	case pos.Before(c.at):
		if !c.behind {
			return c.heartbeat()
		}
		return nil
	case c.behind:
		if err := c.heartbeat(); err != nil {
			return err
		}
	}
	if !c.full && !c.at.IsZero() {
		if pos == c.at {
			c.resumed()
			return nil
		}
		if entries, ok := state.Since(c.at); ok {
			c.resumed()
			return c.batch(pos, entries)
		}
	}
	return c.snapshot(state)
}

// resumed notes that the client goes on from where it was.
func (c *session) resumed() {
	if !c.started {
		c.started = true
		c.resumes.Add(1)
	}
}

func (c *session) checkCluster(state State) error {
	id := state.ClusterID()
	if id == "" || id == c.cluster {
		return nil
	}
	if c.cluster != "" {
		return refuse(ErrCluster, "cluster mismatch: the agent belongs to cluster %s, the plugin to %s; point the plugin at the right agent, or remove its snapshot file and correct `cluster` in the Corefile",
			id, c.cluster)
	}
	c.cluster = id
	return nil
}

func (c *session) batch(pos record.Position, entries []record.Entry) error {
	part := &feedpb.Batch{Prev: positionPB(c.at), Position: positionPB(pos)}
	flush := func(more bool) error {
		part.More = more
		err := c.send(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Batch{Batch: part}})
		part = &feedpb.Batch{Prev: positionPB(c.at), Position: positionPB(pos)}
		return err
	}
	size := 0
	for _, e := range entries {
		part.Entries = append(part.Entries, entryPB(e))
		if size += entrySize(e); size >= c.part {
			if err := flush(true); err != nil {
				return err
			}
			size = 0
		}
	}
	if err := flush(false); err != nil {
		return err
	}
	c.at = pos
	c.batches.Add(1)
	return nil
}

func (c *session) snapshot(state State) error {
	pos := positionPB(state.Position())
	part := &feedpb.Snapshot{Position: pos}
	var size int
	var count, hash uint64
	for e := range state.Entries() {
		if e.Deleted {
			continue
		}
		count++
		hash += catalog.EntryHash(e)
		part.Entries = append(part.Entries, entryPB(e))
		if size += entrySize(e); size >= c.part {
			part.More = true
			if err := c.send(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Snapshot{Snapshot: part}}); err != nil {
				return err
			}
			part, size = &feedpb.Snapshot{Position: pos}, 0
		}
	}
	if hash != state.Hash() {
		return status.Errorf(codes.DataLoss, "the state at %v hashes to %x, not %x", state.Position(), hash, state.Hash())
	}
	part.Count, part.Hash = count, hash
	if err := c.send(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Snapshot{Snapshot: part}}); err != nil {
		return err
	}
	c.at, c.full, c.started = state.Position(), false, true
	c.snapshots.Add(1)
	return nil
}

// gossip brings the client to what is known now.
func (c *session) gossip() error {
	frames, now, version := c.relay.Since(c.have)
	for frame := range frames {
		if len(frame) > MaxRelayFrame {
			return status.Errorf(codes.Internal, "relay frame of %d bytes", len(frame))
		}
		for first := true; first || len(frame) > 0; first = false {
			part := frame[:min(len(frame), c.part)]
			frame = frame[len(part):]
			if err := c.send(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Relay{
				Relay: &feedpb.Relay{Frame: part, More: len(frame) > 0},
			}}); err != nil {
				return err
			}
		}
	}
	c.have, c.version = now, version
	return nil
}

func (c *session) heartbeat() error {
	state, st := c.cfg.Source.State(), c.cfg.Source.Status()
	if err := c.checkCluster(state); err != nil {
		return err
	}
	behind := state.Position().Before(c.at)
	if behind && !c.behind {
		c.Server.behind.Add(1)
	}
	c.behind = behind
	hb := Heartbeat{
		ClusterID: state.ClusterID(), Commit: st.Commit, Applied: state.Position(), Hash: state.Hash(),
		LeaderKnown: st.LeaderKnown, Lag: st.Lag, Behind: behind,
	}
	return c.send(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Heartbeat{Heartbeat: heartbeatPB(hb)}})
}

// ack is called by the receiving goroutine.
func (c *session) ack(a *feedpb.Ack) {
	pos, ttl := position(a.GetApplied()), duration(a.GetClientTtlMs())
	believed := !c.known().Before(pos)
	if !believed {
		c.badAcks.Add(1)
	}
	c.members.report(c.member, pos, ttl, believed)
}

// send blocks while the client does not read.
func (c *session) send(f *feedpb.ServerFrame) error { return c.stream.Send(f) }
