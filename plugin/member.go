package fluid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/mesh"
	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	// Pauses between attempts to join while nobody else is there.
	seekFrom = 250 * time.Millisecond
	seekTo   = 15 * time.Second
	// leaveFor bounds the farewell at the end of the process.
	leaveFor = time.Second
	// settleFor is how long an agent has to be in the mesh before what was read
	// from disk counts as compared with it: two rounds of digests.
	settleFor = 10 * time.Second
	// A start waits for the mesh until nothing more has come for quietFor, and
	// holdFor at most.
	quietFor = 300 * time.Millisecond
	holdFor  = 3 * time.Second
)

// member is the engine's end of the gossip mesh. It owns no origin: it takes
// in, passes on, and tells of its own life. It lives as long as the engine, so
// a reload is nothing that the others could notice.
//
// The mesh calls the engine with locks of its own held, so nothing here calls
// the mesh with the engine's mutex held.
type member struct {
	mesh.Mesh
	e    *engine
	impl mesh.Impl
	kick chan struct{} // capacity 1: the seeds changed
	told chan struct{} // capacity 1: there may be something to tell; see tell

	mu    sync.Mutex // guards what follows
	seeds []string

	keysMu sync.Mutex // one change of keys at a time; guards what follows
	keys   [][]byte   // those of the member
	files  keyFiles

	// Guarded by the engine's mu.
	opened time.Time
	first  time.Time // when the first news came
	fresh  time.Time // when the mesh last changed what is answered
	asked  bool      // somebody would answer already; see complete

	// What follows belongs to tick.
	cluster  string                          // told to the mesh
	heard    time.Time                       // when the last frame came
	attended time.Time                       // since when an agent is in the mesh; zero: none is
	joined   bool                            // there was company once
	presumed map[string]catalog.MemberStatus // of agents that the mesh never saw
	looked   time.Time                       // when presumed and the snapshot were last seen to
}

// meshed reports whether the server is a member of a mesh between processes.
func (p *process) meshed() bool { return p.Gossip == gossipMemberlist || p.Gossip == gossipCRDT }

// openMember starts the member. An error names the option to look at.
func (e *engine) openMember() error {
	p := &e.options
	if !p.meshed() {
		return nil
	}
	m := &member{
		e: e, impl: mesh.Impl(p.Gossip), kick: make(chan struct{}, 1), told: make(chan struct{}, 1), seeds: withPorts(p.GossipSeeds), keys: p.GossipKeys, files: keyFiles{paths: p.GossipKeyFiles},
		presumed: map[string]catalog.MemberStatus{}, opened: time.Now(),
	}
	e.mu.Lock()
	m.cluster = e.head.Cluster
	for _, h := range e.catalog.Heads() { // the snapshot brought these
		e.kept[h.Origin] = h
	}
	e.member = m
	e.mu.Unlock()
	var err error
	state := ""
	if p.Snapshot != "" { // else the id is new at each start
		state = p.Snapshot + ".incarnation"
	}
	m.Mesh, err = mesh.New(mesh.Config{
		Impl: m.impl, ID: e.head.Member, Name: p.GossipNode, Role: mesh.RoleDNS, Replica: replica{e}, Cluster: m.cluster, State: state,
		Bind: p.GossipAddress, Advertise: p.GossipAdvertise, Seeds: m.seeds, Label: p.GossipLabel, Keys: p.GossipKeys,
		Allow: p.GossipAllow, Compression: p.GossipCompression, Insecure: p.GossipInsecure, Network: p.network, Logger: slog.New(logHandler{}),
	})
	if err != nil {
		e.mu.Lock()
		e.member = nil
		e.mu.Unlock()
		return fmt.Errorf("gossip %s %s: %w", p.Gossip, p.GossipAddress, err)
	}
	log.Infof("in the mesh as %s (%s) at %s", p.GossipNode, p.Gossip, m.Self().Addr)
	return nil
}

// withPorts gives the default port to addresses that have none.
func withPorts(addrs []string) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), defaultGossipPort)
		}
		out[i] = a
	}
	return out
}

// configure takes on what of a Corefile can change while the member runs.
func (m *member) configure(p *process) {
	seeds := withPorts(p.GossipSeeds)
	m.mu.Lock()
	moved := !slices.Equal(m.seeds, seeds)
	m.seeds = seeds
	m.mu.Unlock()
	if moved {
		select {
		case m.kick <- struct{}{}:
		default:
		}
	}
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	m.files = keyFiles{paths: p.GossipKeyFiles}
	m.turn(p.GossipKeys)
}

// seek joins the seeds while nobody else is there, and new seeds at once, until
// ctx ends. Splits are the mesh's own business.
func (m *member) seek(ctx context.Context) {
	said := ""
	pause, fresh := seekFrom, true
	for {
		m.mu.Lock()
		seeds := m.seeds
		m.mu.Unlock()
		if alive, _ := m.company(); len(seeds) > 0 && (fresh || alive == 0) {
			_, err := m.Join(ctx, seeds)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				fresh, said = false, ""
			case err.Error() != said && pause > time.Second: // the agent beside it may still be starting
				said = err.Error()
				log.Warningf("gossip_seeds: %v; it goes on trying", err)
			}
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		pause = min(2*pause, seekTo)
		select {
		case <-t.C:
		case <-m.kick:
			t.Stop()
			pause, fresh = seekFrom, true
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// company counts the other members that are alive, and the agents among them.
func (m *member) company() (alive, agents int) {
	self := m.e.head.Member
	for _, o := range m.Members() {
		if o.ID == self || o.State != mesh.Alive {
			continue
		}
		alive++
		if o.Role == mesh.RoleAgent {
			agents++
		}
	}
	return alive, agents
}

// tick lets news of the mesh count, and keeps the snapshot in step with what
// came that way. Called by the engine's clock.
func (m *member) tick(now time.Time) {
	alive, agents := m.company()
	last := m.Stats().LastFrame
	// memberlist carries data in its own packets; its probes are the news.
	news := last.After(m.heard) || m.impl == mesh.Memberlist && alive > 0
	m.heard, m.joined = last, m.joined || alive > 0
	switch {
	case agents == 0:
		m.attended = time.Time{}
	case m.attended.IsZero():
		m.attended = now
	}
	var members []mesh.Member
	look := now.Sub(m.looked) >= time.Second
	if look {
		m.looked, members = now, m.Members()
		m.followKeys()
	}

	if cluster := m.catchUp(now, news, look, members); cluster != m.cluster {
		m.cluster = cluster
		m.SetCluster(cluster)
	}
	m.poke()
}

// catchUp tells the engine what a tick found out, and returns the cluster that
// it knows.
func (m *member) catchUp(now time.Time, news, look bool, members []mesh.Member) string {
	e := m.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if news && m.first.IsZero() {
		m.first = time.Now()
	}
	if m.asked {
		e.confirm()
	}
	settled := !m.attended.IsZero() && now.Sub(m.attended) >= settleFor
	if news && !e.catalog.Position().IsZero() && (!e.fromDisk || settled) {
		e.confirm()
	}
	if look {
		m.presume(members)
		e.keepGossip()
	}
	e.flush()
	if e.volatile {
		e.rewrite()
	}
	return e.head.Cluster
}

// complete reports whether the mesh brought all that it will for now, as far as
// a member can tell. Before that, a start that answers from the feed alone
// would deny what agents vouch for. Called with the engine's mu held.
func (m *member) complete() bool {
	now := time.Now()
	m.asked = now.Sub(m.opened) < holdFor &&
		(m.first.IsZero() || now.Sub(m.first) < quietFor || now.Sub(m.fresh) < quietFor)
	return !m.asked
}

// presume tells the catalog of agents that this member never met: their
// records came from the snapshot or from others. Members that were met do not
// know them either, so they are gone; before any was met nothing can be told,
// and the last known good stands. Called with the engine's mu held.
func (m *member) presume(members []mesh.Member) {
	e := m.e
	met := make(map[string]bool, len(members))
	for _, o := range members {
		met[o.ID] = true
		delete(m.presumed, o.ID)
	}
	status := catalog.MemberAlive
	if m.joined {
		status = catalog.MemberDead
	}
	for name := range e.catalog.Nodes() {
		node, ok := e.catalog.Node(name)
		if !ok || node.ID == "" || met[node.ID] {
			continue
		}
		if old, ok := m.presumed[node.ID]; !ok || old != status {
			m.presumed[node.ID] = status
			e.publish(e.catalog.ObserveMember(e.wall().UnixMilli(), node.ID, status))
		}
	}
}

// leave says goodbye and closes, within leaveFor.
func (m *member) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveFor*9/10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		m.e.guard("leaving the mesh", func() {
			if err := m.Leave(ctx); err != nil && !errors.Is(err, mesh.ErrClosed) {
				log.Warningf("leaving the mesh: %v", err)
			}
		})
	}()
	late := time.NewTimer(leaveFor)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		log.Warningf("leaving the mesh takes longer than %v", leaveFor)
	}
}

// replica lets the mesh work on the engine's catalog.
type replica struct{ e *engine }

var _ mesh.Replica = replica{}

// Update implements mesh.Replica.
func (r replica) Update(f func(*catalog.Catalog) catalog.Changes) {
	e := r.e
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.catalog.Position()
	ch := f(e.catalog)
	moved := e.catalog.Position() != before
	if moved || !ch.Empty() {
		e.publish(ch)
		if e.member != nil { // nil once it failed to open
			e.member.fresh = time.Now()
		}
	}
	if moved {
		e.confirm()
		if e.file != nil && e.unsaved == nil {
			e.unsaved = &before
		}
	}
}

// flush brings the snapshot up to what the mesh committed. That is not done in
// Update, which must not wait for a disk; until then the position is not
// acknowledged. Called with mu held.
func (e *engine) flush() {
	if e.unsaved == nil {
		return
	}
	from := *e.unsaved
	e.unsaved = nil
	if entries, ok := e.catalog.Since(from); ok && !from.IsZero() {
		e.journal(from, e.catalog.Position(), entries)
		return
	}
	e.rewrite()
}

// keepGossip adds to the snapshot what the mesh brought since it did so last.
// Called with mu held.
func (e *engine) keepGossip() {
	if e.file == nil || e.catalog.Position().IsZero() {
		return // what is on disk may be the only thing that is known
	}
	for _, h := range e.catalog.Heads() {
		was := e.kept[h.Origin]
		if h == was {
			continue
		}
		if h.Compare(was) == 0 && was.Hash != 0 && h.Hash != 0 { // a repair: nothing was added, but something replaced
			e.kept[h.Origin] = h
			e.rewrite()
			return
		}
		want := catalog.Want{Origin: h.Origin, Epoch: was.Epoch, Nonce: was.Nonce, From: was.Watermark}
		e.kept[h.Origin] = h
		for _, d := range e.catalog.Pull(want, maxPull) {
			if e.volatile || e.file.AppendGossip(d.Append(nil)) != nil {
				e.rewrite() // with all of it
				return
			}
		}
	}
}

// newer returns which entries of a batch from prev are beyond what the
// catalog already has by the mesh: a batch holds the last change of every key.
// It reports false if nothing is. Called with mu held.
func (e *engine) newer(prev, pos record.Position, entries []record.Entry) (record.Position, []record.Entry, bool) {
	at := e.catalog.Position()
	if e.member == nil || !prev.Before(at) {
		return prev, entries, true
	}
	if !at.Before(pos) {
		return prev, nil, false
	}
	if at.Generation == pos.Generation {
		prev = at
		entries = slices.DeleteFunc(entries, func(x record.Entry) bool { return x.Index <= at.Index })
	}
	return prev, entries, true
}
