package mesh

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh/transport"
)

// members takes in what memberlist reported.
func (g *gossip) members() {
	g.mu.Lock()
	events := g.events
	g.events = nil
	g.mu.Unlock()
	for _, ev := range events {
		m := ev.node
		switch {
		case !ev.down:
			m.State = Alive
		case m.State != Left:
			m.State = Dead
		}
		g.mu.Lock()
		old, seen := g.known[m.ID]
		m.Since = time.Now()
		if seen && old.State == m.State {
			m.Since = old.Since
		}
		g.known[m.ID] = m
		g.mu.Unlock()
		g.track(m)
		if m.State != Alive && m.ID != g.cfg.ID {
			// A stream through a network that was cut can be stuck for many seconds
			// after it heals, and so long can the pause be after dials that failed.
			g.streams.Disconnect(transport.MemberID(m.ID))
		}
		g.do(func(now int64, c *catalog.Catalog) {
			if m.ID != g.cfg.ID {
				if m.State == Alive {
					g.eng.peerUp(now, m.ID)
				} else {
					g.eng.peerDown(m.ID)
				}
			}
			g.eng.join(c.ObserveMember(now, m.ID, memberStatus(m.State)))
		})
		if g.cfg.OnMember != nil && (!seen || old.State != m.State) {
			g.cfg.OnMember(m)
		}
	}
}

// track tells the rejoiner who is there.
func (g *gossip) track(m Member) {
	at, err := netip.ParseAddrPort(m.Addr)
	if m.ID == g.cfg.ID || err != nil {
		return
	}
	switch m.State {
	case Alive:
		g.rejoin.Alive(transport.MemberID(m.ID), at)
	case Dead:
		g.rejoin.Dead(transport.MemberID(m.ID), at)
	case Left:
		g.rejoin.Left(transport.MemberID(m.ID))
	}
}

// Self implements Mesh.
func (g *gossip) Self() Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m, ok := g.known[g.cfg.ID]; ok {
		return m
	}
	n := g.ml.LocalNode()
	return Member{ID: g.cfg.ID, Name: g.cfg.Name, Addr: n.Address(), Role: g.cfg.Role, State: Alive, Zone: g.cfg.Zone}
}

// Members implements Mesh.
func (g *gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Values(g.known), func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
}

// Join implements Mesh.
func (g *gossip) Join(ctx context.Context, addrs []string) (int, error) {
	type result struct {
		n   int
		err error
	}
	addrs = slices.Clone(addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	done := make(chan result, 1)
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return 0, ErrClosed
	}
	g.wg.Go(func() {
		n, err := g.ml.Join(addrs[:min(len(addrs), joinAtOnce)])
		done <- result{n, err}
	})
	g.mu.Unlock()
	select {
	case r := <-done:
		if r.n == 0 {
			return 0, errors.Join(ErrNoMember, r.err)
		}
		return r.n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
