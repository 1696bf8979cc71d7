package mesh

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

// member is an in-memory member.
type member struct {
	cfg Config
	hub *Hub

	reports []Report // guarded by hub.mu

	mu      sync.Mutex // guards what is below; taken inside hub.mu
	known   map[string]Member
	seal    catalog.Seal
	cluster string
	keys    [][]byte
	stats   Stats
	gone    bool
}

var _ Mesh = (*member)(nil)

func newMember(cfg Config) (Mesh, error) {
	hub := cfg.Hub
	if hub == nil {
		hub = &processHub
	}
	m := &member{cfg: cfg, hub: hub, known: map[string]Member{}, keys: cfg.Keys, cluster: cfg.Cluster, stats: Stats{Dropped: map[string]uint64{}}}
	hub.mu.Lock()
	defer hub.mu.Unlock()
	if hub.members == nil {
		hub.members, hub.cut = map[string]*member{}, map[[2]string]bool{}
	}
	m.see(m.describe(Alive))
	hub.members[cfg.ID] = m
	for _, o := range hub.others(m) {
		o.see(m.describe(Alive))
		m.see(o.describe(Alive))
		hub.sync(m, o)
	}
	return m, nil
}

func (m *member) describe(s State) Member {
	return Member{
		ID: m.cfg.ID, Name: m.cfg.Name, Addr: "inmemory:" + m.cfg.ID, Role: m.cfg.Role,
		State: s, Zone: m.cfg.Zone, Since: time.Now(),
	}
}

// see takes note of another member's state.
func (m *member) see(o Member) {
	m.mu.Lock()
	old, ok := m.known[o.ID]
	changed := !ok || old.State != o.State
	if changed {
		m.known[o.ID] = o
	}
	m.mu.Unlock()
	if !changed {
		return
	}
	m.cfg.Replica.Update(func(c *catalog.Catalog) catalog.Changes {
		return c.ObserveMember(time.Now().UnixMilli(), o.ID, memberStatus(o.State))
	})
	if m.cfg.OnMember != nil {
		m.cfg.OnMember(o)
	}
}

// memberStatus is the part of a member's state that the catalog judges by.
func memberStatus(s State) catalog.MemberStatus {
	switch s {
	case Dead:
		return catalog.MemberDead
	case Left:
		return catalog.MemberLeft
	}
	return catalog.MemberAlive
}

// pull takes from o what m lacks.
func (m *member) pull(o *member) {
	var heads []catalog.Head
	o.read(func(c *catalog.Catalog) { heads = c.Heads() })
	var wants []catalog.Want
	var at catalog.Batch
	m.read(func(c *catalog.Catalog) {
		for _, head := range heads {
			if w, ok := c.Missing(head); ok {
				wants = append(wants, w)
			}
		}
		at.Prev = c.Position()
	})
	var deltas []catalog.Delta
	var batches []catalog.Batch
	o.read(func(c *catalog.Catalog) {
		for _, w := range wants {
			deltas = append(deltas, c.Pull(w, 1<<30)...)
		}
		batches = c.Batches(at.Prev, o.lastSeal())
	})
	for i := range deltas {
		m.merge(&deltas[i])
	}
	m.commit(batches)
}

func (m *member) read(f func(*catalog.Catalog)) {
	m.cfg.Replica.Update(func(c *catalog.Catalog) catalog.Changes {
		f(c)
		return catalog.Changes{}
	})
}

func (m *member) lastSeal() catalog.Seal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seal
}

func (m *member) merge(d *catalog.Delta) {
	var res catalog.Merged
	var err error
	m.cfg.Replica.Update(func(c *catalog.Catalog) catalog.Changes {
		res, err = c.Merge(time.Now().UnixMilli(), d)
		return res.Changes
	})
	m.count(func(s *Stats) {
		s.FramesIn++
		s.BytesIn += uint64(d.Size())
		if err != nil {
			s.Dropped[dropReason(err)]++
		}
		if d.ResetTo != 0 {
			s.Resets++
		}
	})
	if res.Cloned && m.cfg.OnClone != nil {
		m.cfg.OnClone(d.Origin)
	}
}

// commit applies batches of committed state.
func (m *member) commit(batches []catalog.Batch) {
	m.mu.Lock()
	cluster := m.cluster
	m.mu.Unlock()
	if cluster == "" {
		return
	}
	var asm assembly
	for i := range batches {
		b := &batches[i]
		var done bool
		var err error
		m.cfg.Replica.Update(func(c *catalog.Catalog) (ch catalog.Changes) {
			if b.Full {
				ch, done, err = asm.add(c, cluster, b)
			} else {
				ch, done, err = applyBatch(c, cluster, b)
			}
			return ch
		})
		if done {
			m.mu.Lock()
			m.seal = b.Seal
			m.mu.Unlock()
		}
		if err != nil {
			m.count(func(s *Stats) { s.Dropped[dropReason(err)]++ })
		}
	}
}

func (m *member) count(f func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.stats)
}

// Self implements Mesh.
func (m *member) Self() Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[m.cfg.ID]
}

// Members implements Mesh.
func (m *member) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.known), func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
}

// Join implements Mesh. In-memory members find each other through their hub;
// an address is "inmemory:ID".
func (m *member) Join(_ context.Context, addrs []string) (int, error) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	n := 0
	for _, o := range m.hub.others(m) {
		if slices.Contains(addrs, "inmemory:"+o.cfg.ID) {
			m.hub.sync(m, o)
			n++
		}
	}
	if n == 0 {
		return 0, ErrNoMember
	}
	return n, nil
}

// Publish implements Mesh.
func (m *member) Publish(d catalog.Delta) {
	m.each(func(o *member) { o.merge(&d) }, d.Size())
}

// Commit implements Mesh.
func (m *member) Commit(b catalog.Batch) {
	m.mu.Lock()
	m.seal = b.Seal
	m.mu.Unlock()
	m.each(func(o *member) { o.pull(m) }, b.Size())
}

// each delivers something of a size in bytes to every member that m reaches.
func (m *member) each(f func(*member), size int) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	if m.hub.members[m.cfg.ID] != m {
		return
	}
	for _, o := range m.hub.others(m) {
		f(o)
		m.count(func(s *Stats) { s.FramesOut++; s.BytesOut += uint64(size) })
	}
}

// SetCluster implements Mesh.
func (m *member) SetCluster(id string) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	m.mu.Lock()
	m.cluster = id
	m.mu.Unlock()
	for _, o := range m.hub.others(m) {
		m.pull(o)
	}
}

// Confirm implements Mesh. Deliveries are immediate, so it never waits for
// longer than the members there are need to be asked.
func (m *member) Confirm(ctx context.Context, head catalog.Head, k int) (int, error) {
	m.hub.mu.Lock()
	n := 0
	for _, o := range m.hub.others(m) {
		o.read(func(c *catalog.Catalog) {
			if got, ok := c.Head(head.Origin); ok && got.Compare(head) >= 0 {
				n++
			}
		})
	}
	m.hub.mu.Unlock()
	if n >= k {
		return n, nil
	}
	<-ctx.Done()
	return n, ctx.Err()
}

// Keys implements Mesh.
func (m *member) Keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	parsed, _ := parseKeys(m.keys) // checked when they were set
	out := []string{}
	for _, k := range parsed {
		out = append(out, k.ID().String())
	}
	return out
}

// SetKeys implements Mesh. Nothing is encrypted inside one process.
func (m *member) SetKeys(keys [][]byte) error {
	if _, err := parseKeys(keys); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = keys
	return nil
}

// Stats implements Mesh.
func (m *member) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Dropped = maps.Clone(s.Dropped)
	return s
}

// Leave implements Mesh.
func (m *member) Leave(context.Context) error { return m.end(Left) }

// Close implements Mesh.
func (m *member) Close() error {
	err := m.end(Dead)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

func (m *member) end(s State) error {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	m.mu.Lock()
	gone := m.gone
	m.gone = true
	m.mu.Unlock()
	if gone {
		return ErrClosed
	}
	if m.hub.members[m.cfg.ID] == m {
		delete(m.hub.members, m.cfg.ID)
		for _, o := range m.hub.others(m) {
			o.see(m.describe(s))
		}
	}
	return nil
}
