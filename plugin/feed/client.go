package feed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	minBackoff     = 50 * time.Millisecond
	maxBackoff     = 2 * time.Second
	maxRetry       = 10 * time.Second // between attempts at what failed for a reason that lasts
	connectTimeout = 2 * time.Second
	missedBeats    = 3
	window         = 1 << 20 // bytes in flight to a client that does not read
)

// ClientConfig is what a client needs besides its sink. MemberID and one of
// Socket and Dial must be set.
type ClientConfig struct {
	Socket         string                                      // path of the agent's socket
	Dial           func(ctx context.Context) (net.Conn, error) // default: Socket
	MemberID       string                                      // durable: 1 to 64 letters, digits and ".", "_", ":", "-"
	Name           string                                      // of the member, for people
	Version        string                                      // of the plugin
	Implementation string                                      // gossip implementation, or RelayImplementation
	Relay          bool                                        // ask for gossip as well
}

// ClientStats counts what a client did. All counters only grow.
type ClientStats struct {
	Connects  uint64 // sessions that a server accepted
	Failures  uint64 // attempts and sessions that ended with an error
	Snapshots uint64 // full snapshots applied
	Resumes   uint64 // sessions that went on without a snapshot
	Batches   uint64 // batches applied
	Relayed   uint64 // relay frames applied
	Behind    uint64 // times the server said that it is behind
	Diverged  uint64 // times the content differed at one position
}

// Client is the plugin's end of the feed.
type Client struct {
	cfg  ClientConfig
	sink Sink

	connects, failures, snapshots, resumes, batches, relayed, behind, diverged atomic.Uint64

	// What follows belongs to the goroutine of Run.
	full      bool            // ask for a snapshot at the next hello
	vouched   record.Position // acknowledged last
	connected bool            // what the sink was told last
	reason    string          // what the sink was told last
}

// NewClient makes a client. It does nothing until Run.
func NewClient(cfg ClientConfig, sink Sink) (*Client, error) {
	if err := checkMemberID(cfg.MemberID); err != nil {
		return nil, fmt.Errorf("feed client: %w", err)
	}
	if cfg.Dial == nil {
		if cfg.Socket == "" {
			return nil, errors.New("feed client: Socket or Dial must be set")
		}
		cfg.Dial = dialer(cfg.Socket)
	}
	return &Client{cfg: cfg, sink: sink}, nil
}

// Stats returns the counters. It may be called from any goroutine.
func (c *Client) Stats() ClientStats {
	return ClientStats{
		Connects:  c.connects.Load(),
		Failures:  c.failures.Load(),
		Snapshots: c.snapshots.Load(),
		Resumes:   c.resumes.Load(),
		Batches:   c.batches.Load(),
		Relayed:   c.relayed.Load(),
		Behind:    c.behind.Load(),
		Diverged:  c.diverged.Load(),
	}
}

// Run keeps the sink up to date until ctx ends, and then returns its error.
// It calls the sink from its own goroutine only; when it returns, all
// goroutines that it started have ended. It must be called once.
func (c *Client) Run(ctx context.Context) error {
	pause := minBackoff
	for ctx.Err() == nil {
		start := time.Now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			break
		}
		c.failures.Add(1)
		c.tell(false, err)
		limit := maxBackoff
		if lasting(err) {
			limit = maxRetry
		}
		if time.Since(start) > maxRetry {
			pause = minBackoff
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, limit)
	}
	return ctx.Err()
}

// lasting reports whether the next attempt will likely fail as this one did,
// and may cost a snapshot.
func lasting(err error) bool {
	for _, e := range []error{ErrProtocol, ErrCluster, ErrImplementation, ErrPeer, ErrBusy, ErrInvalid, ErrDiverged, ErrSink} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// tell tells the sink about the connection, once per different reason.
func (c *Client) tell(connected bool, err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	if connected == c.connected && reason == c.reason {
		return
	}
	c.connected, c.reason = connected, reason
	c.guard(func() error { c.sink.State(connected, err); return nil })
}

// guard turns a panic of the sink into an error.
func (c *Client) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v", ErrSink, p)
		}
	}()
	return f()
}

// session makes one connection and serves the sink until it ends. The error
// is never nil.
func (c *Client) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dialCtx, dialDone := context.WithTimeout(ctx, connectTimeout)
	nc, err := c.cfg.Dial(dialCtx)
	dialDone()
	if err != nil {
		return err
	}
	cc, err := connection(nc)
	if err != nil {
		_ = nc.Close()
		return fmt.Errorf("feed: %w", err)
	}
	defer func() { _ = errors.Join(cc.Close(), nc.Close()) }()
	stream, err := feedpb.NewFeedClient(cc).Sync(ctx)
	if err != nil {
		return readable(err)
	}

	var at Hello
	if err := c.guard(func() error { at = c.sink.Hello(); return nil }); err != nil {
		return err
	}
	// If it fails, the reason is in what the server sent: a refusal, perhaps.
	_ = stream.Send(&feedpb.ClientFrame{Frame: &feedpb.ClientFrame_Hello{Hello: c.hello(at)}})
	frames := make(chan *feedpb.ServerFrame)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			f, err := stream.Recv()
			if err != nil {
				cancel(readable(err))
				return
			}
			select {
			case frames <- f:
			case <-ctx.Done():
				return
			}
		}
	}()
	err = c.serve(ctx, &receiver{Client: c, send: stream.Send, at: at.Position, cluster: at.ClusterID, full: c.full}, frames)
	cancel(err)
	<-done
	return err
}

// vouch returns the position to acknowledge: what a restart would not lose.
func (c *Client) vouch(at Hello) record.Position {
	if !at.Volatile {
		c.vouched = at.Position
	}
	return c.vouched
}

// connection makes one gRPC connection over nc. It must not reconnect on its
// own, so it dials once.
func connection(nc net.Conn) (*grpc.ClientConn, error) {
	var handed atomic.Bool
	return grpc.NewClient("passthrough:///fluid-agent",
		grpc.WithTransportCredentials(peerCredentials{}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if handed.Swap(true) {
				return nil, net.ErrClosed
			}
			return nc, nil
		}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(), grpc.WithDisableHealthCheck(),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
}

func (c *Client) hello(at Hello) *feedpb.Hello {
	h := &feedpb.Hello{
		ProtocolMin: ProtocolMin, ProtocolMax: ProtocolMax,
		MemberId: c.cfg.MemberID, Name: c.cfg.Name, Version: c.cfg.Version, Implementation: c.cfg.Implementation,
		ClusterId: at.ClusterID, Position: positionPB(at.Position), Full: c.full,
		ClientTtlMs: millis(at.ClientTTL), Zones: at.Zones,
		Applied: positionPB(c.vouch(at)),
	}
	if c.cfg.Relay {
		h.Relay, h.Vector = true, vectorPB(at.Vector)
	}
	return h
}

// serve hands frames to r. Silence counts only while waiting, so a sink that
// takes its time is not mistaken for a server that is gone.
func (c *Client) serve(ctx context.Context, r *receiver, frames <-chan *feedpb.ServerFrame) error {
	r.patience = missedBeats * DefaultHeartbeat
	silent := time.NewTimer(r.patience)
	defer silent.Stop()
	for {
		silent.Reset(r.patience)
		select {
		case f := <-frames:
			if err := r.frame(f); err != nil {
				return err
			}
		case <-silent.C:
			return fmt.Errorf("%w for %v", ErrSilent, r.patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// dialer connects to a socket, with errors that say what to do.
func dialer(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			owner := ""
			if info, statErr := os.Stat(path); statErr == nil {
				owner = ", which belongs to " + ownerOf(info)
			}
			return nil, fmt.Errorf("%w: uid %d may not open %s%s; run CoreDNS as a member of that group", ErrPeer, os.Geteuid(), path, owner)
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("no agent: %s does not exist; start fluid-agent, or name its socket with `agent` or FLUID_SOCKET", path)
		case err != nil:
			return nil, fmt.Errorf("no agent: %w", err)
		}
		return nc, nil
	}
}

// readable turns an error of gRPC into one about the feed.
func readable(err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("feed: agent closed the connection: %w", err)
	}
	switch st.Code() {
	case codes.Unimplemented:
		return fmt.Errorf("%w: the socket is served by something that speaks no feed", ErrProtocol)
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: %s", ErrInvalid, printable(st.Message()))
	}
	return fmt.Errorf("feed: %s", printable(st.Message()))
}
