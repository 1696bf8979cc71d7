package store

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// drainTime bounds how long stopping Raft waits for requests in it. Each is
// answered soon, by losing leadership at the latest, unless Raft itself hangs.
const drainTime = 3 * time.Second

// gate counts the requests that Raft works on and keeps new ones out while it
// stops. Raft 1.8.0 never answers a request that stands in one of its channels
// when it shuts down, so none may.
type gate struct {
	mu     sync.Mutex // guards what follows
	n      int
	closed bool
	idle   chan struct{} // closed when n reaches 0, if not nil
}

// enter reports whether a request may go to Raft; leave must follow.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.n == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// shut keeps new requests out and waits, within bounds, until there are none.
func (g *gate) shut() {
	g.mu.Lock()
	g.closed = true
	var idle chan struct{}
	if g.n > 0 {
		if g.idle == nil {
			g.idle = make(chan struct{})
		}
		idle = g.idle
	}
	g.mu.Unlock()
	if idle == nil {
		return
	}
	t := time.NewTimer(drainTime)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
}

// request puts a request to Raft and waits for it no longer than ctx.
func (s *Store) request(ctx context.Context, ask func(*raft.Raft) raft.Future) error {
	if !s.gate.enter() {
		return raft.ErrRaftShutdown
	}
	done := make(chan error, 1)
	go func() {
		defer s.gate.leave()
		done <- ask(s.node()).Error()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
