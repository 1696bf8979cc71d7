package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
)

// refuse is a reason to end a session that is told to the client.
func refuse(kind error, format string, args ...any) error {
	return &refusedError{kind: kind, msg: fmt.Sprintf(format, args...)}
}

// inbox receives what a client sends. Acknowledgements are taken as they come,
// also while the session is busy sending, so that two peers that both wait for
// the other to read cannot happen.
type inbox struct {
	stream   syncStream
	hello    chan *feedpb.ClientFrame // the first frame
	accepted chan func(*feedpb.Ack)   // where the others go
}

// receive ends when Sync returns, at the latest.
func (in *inbox) receive(ctx context.Context, cancel context.CancelCauseFunc) {
	defer func() {
		if p := recover(); p != nil {
			cancel(fmt.Errorf("panic: %v", p))
		}
	}()
	var ack func(*feedpb.Ack)
	for {
		f, err := in.stream.Recv()
		if err != nil {
			cancel(err)
			return
		}
		if ack == nil {
			in.hello <- f
			select {
			case ack = <-in.accepted:
			case <-ctx.Done():
				return
			}
			continue
		}
		if a := f.GetAck(); a != nil { // else of a later protocol
			ack(a)
		}
	}
}

// hello waits for the hello and checks it.
func (s *Server) hello(ctx context.Context, frames <-chan *feedpb.ClientFrame) (*feedpb.Hello, error) {
	late := time.NewTimer(s.cfg.HelloTimeout)
	defer late.Stop()
	var h *feedpb.Hello
	select {
	case f := <-frames:
		if h = f.GetHello(); h == nil {
			return nil, refuse(ErrInvalid, "the first frame is no hello")
		}
	case <-late.C:
		return nil, refuse(ErrInvalid, "no hello within %v", s.cfg.HelloTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := checkHello(h); err != nil {
		return nil, refuse(ErrInvalid, "%v", err)
	}
	if h.GetProtocolMin() > ProtocolMax || h.GetProtocolMax() < ProtocolMin {
		return nil, refuse(ErrProtocol, "feed protocol mismatch: the agent speaks %d to %d, the plugin %d to %d; upgrade the older one",
			ProtocolMin, ProtocolMax, h.GetProtocolMin(), h.GetProtocolMax())
	}
	switch h.GetImplementation() {
	case RelayImplementation, s.cfg.Implementation:
	default:
		return nil, refuse(ErrImplementation, "gossip implementation mismatch: the agent runs GOSSIP_IMPL=%s, the Corefile says gossip %s; make them the same, or leave gossip out of the Corefile",
			s.cfg.Implementation, h.GetImplementation())
	}
	return h, nil
}

func checkHello(h *feedpb.Hello) error {
	err := errors.Join(
		checkMemberID(h.GetMemberId()),
		checkText("name", h.GetName()),
		checkText("version", h.GetVersion()),
		checkText("cluster id", h.GetClusterId()),
		checkText("implementation", h.GetImplementation()),
	)
	if len(h.GetZones()) > maxZones {
		err = errors.Join(err, fmt.Errorf("%w: %d zones exceed %d", ErrInvalid, len(h.GetZones()), maxZones))
	}
	for _, z := range h.GetZones() {
		err = errors.Join(err, checkText("zone", z))
	}
	return err
}
