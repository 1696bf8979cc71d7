package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

// ReadParams says how current a read must be.
type ReadParams struct {
	Consistency string `query:"consistency" enum:"local,stale,linearizable" default:"local" doc:"local: what this agent has. stale: the same, refused beyond max_age. linearizable: holds every write acknowledged before."`
	MaxAge      string `query:"max_age" doc:"With stale: a Go duration."`

	maxAge time.Duration
}

// Resolve checks the parameters.
func (in *ReadParams) Resolve(huma.Context) []error {
	if in.MaxAge == "" {
		return nil
	}
	d, err := time.ParseDuration(in.MaxAge)
	if err != nil || d < 0 || in.Consistency != "stale" {
		return []error{&huma.ErrorDetail{
			Location: "query.max_age", Value: in.MaxAge,
			Message: "is not usable; give a Go duration such as 10s together with consistency=stale",
		}}
	}
	in.maxAge = d
	return nil
}

// WaitParams makes a read wait for a change.
type WaitParams struct {
	AfterIndex string `query:"index" doc:"Answer when the service has changed after this X-Fluid-Index: INDEX or GENERATION:INDEX."`
	WaitFor    string `query:"wait" doc:"With index: how long to wait at most, a Go duration. Default 30s, at most 10m."`

	after record.Position
	wait  time.Duration
}

const (
	defaultWait = 30 * time.Second
	maxWait     = 10 * time.Minute
)

// Resolve checks the parameters.
func (in *WaitParams) Resolve(huma.Context) []error {
	in.wait = defaultWait
	var errs []error
	if in.WaitFor != "" {
		d, err := time.ParseDuration(in.WaitFor)
		if err != nil || d < 0 || d > maxWait || in.AfterIndex == "" {
			errs = append(errs, &huma.ErrorDetail{
				Location: "query.wait", Value: in.WaitFor, Message: "is not usable; give a Go duration up to 10m together with index",
			})
		}
		in.wait = d
	}
	if in.AfterIndex == "" {
		return errs
	}
	pos, err := record.ParsePosition(in.AfterIndex)
	if !strings.Contains(in.AfterIndex, ":") {
		pos.Index, err = parseIndex(in.AfterIndex)
	}
	if err != nil {
		errs = append(errs, &huma.ErrorDetail{
			Location: "query.index", Value: in.AfterIndex, Message: "is not an index; use the X-Fluid-Index of an answer",
		})
	}
	in.after = pos
	return errs
}

type listInput struct {
	ReadParams
	PageParams
}

// readable returns the headers of a read, once the state is as current as was
// asked for. An agent that does not know its state yet says ErrUnsynced
// instead of answering that nothing exists.
func (s *server) readable(ctx context.Context, in *ReadParams) (ReadHeaders, error) {
	if in.Consistency == "linearizable" {
		if _, err := s.Cluster.Linearizable(ctx); err != nil {
			return ReadHeaders{}, toProblem(err, "")
		}
	}
	st := s.View.Status()
	switch {
	case !st.Synced:
		return ReadHeaders{}, toProblem(ErrUnsynced, "")
	case in.Consistency == "stale" && in.MaxAge != "" && (st.Age > in.maxAge || st.Stale):
		return ReadHeaders{}, toProblem(fmt.Errorf("%w: the last word of a leader is %s old", ErrBehind, st.Age.Round(time.Millisecond)), "")
	}
	return ReadHeaders{
		Index: st.Position.Index, Generation: st.Position.Generation,
		Stale: st.Stale, Age: int64(st.Age / time.Second),
	}, nil
}

// await blocks until the service has changed after a position, or the time is
// up. It never lets a client go back: an agent that is behind the position
// catches up first, and refuses if it does not in time.
func (s *server) await(ctx context.Context, in *WaitParams, service string) error {
	if in.AfterIndex == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, in.wait)
	defer cancel()
	existed := false
	for first := true; ; first = false {
		pos := s.View.Status().Position
		after := in.after
		if after.Generation == 0 {
			after.Generation = pos.Generation
		}
		view, _, exists := s.View.Service(service)
		switch {
		case pos.Before(after):
		case pos.Generation > after.Generation, exists && view.Index > after.Index:
			return nil
		case !exists && (existed || first && after.Before(pos)):
			return nil // removed, for all the client knows
		}
		existed = exists
		select {
		case <-s.Cluster.Changed(pos):
		case <-s.Stopping:
			return s.caughtUp(after)
		case <-ctx.Done():
			return s.caughtUp(after)
		}
	}
}

func (s *server) caughtUp(after record.Position) error {
	if pos := s.View.Status().Position; pos.Before(after) {
		return toProblem(fmt.Errorf("%w: this agent is at %s, not yet at %s", ErrBehind, pos, after), "")
	}
	return nil
}

// settleTime bounds how long an answer to a write waits for this agent.
const settleTime = time.Second

// settle waits until this agent has applied a write that was committed through
// another one, so that its client reads what it wrote. If that takes long, the
// client is told the outcome rather than kept.
func (s *server) settle(ctx context.Context, pos record.Position) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	_ = s.Cluster.WaitApplied(ctx, pos) // the write is done whatever comes of it
}

// spread waits for a write to be here, and everywhere if that was asked for.
// The write itself is done whatever comes of it.
func (s *server) spread(ctx context.Context, in *WriteParams, at WriteHeaders) *Spread {
	pos := record.Position{Generation: at.Generation, Index: at.Index}
	s.settle(ctx, pos)
	if in.Wait != "everywhere" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, in.timeout)
	defer cancel()
	sp := s.Everywhere(ctx, pos)
	sp.Lagging = notNil(sp.Lagging)
	return &sp
}
