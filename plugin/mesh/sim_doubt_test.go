package mesh

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// describedSim is a mesh whose origins say who owns them, level everywhere.
func describedSim(t *testing.T, members, origins int) *sim {
	t.Helper()
	cfg := lan
	cfg.members, cfg.origins = members, origins
	s := newSim(cfg, *simSeed)
	for _, m := range s.members {
		for _, owner := range s.members[:origins] {
			m.c.ObserveMember(int64(s.now), owner.id, catalog.MemberAlive)
		}
	}
	for _, m := range s.members[:origins] {
		it, _ := m.ow.Describe(int64(s.now), &record.Node{ID: m.id, Name: m.id})
		d, _ := m.ow.Commit(int64(s.now), it)
		s.step(m, func(now int64) { m.e.local(now, &d) })
		for _, id := range []string{"a", "b", "c"} {
			s.write(m, id)
		}
	}
	s.run(s.now + 30_000)
	if off := s.differing(); len(off) > 0 {
		t.Fatalf("%d members differ before anything happened", len(off))
	}
	return s
}

// differing returns the members whose answers are not the first writer's.
func (s *sim) differing() []*simMember {
	want := simView(s.members[0].c)
	var out []*simMember
	for _, m := range s.members {
		if simView(m.c) != want {
			out = append(out, m)
		}
	}
	return out
}

// rot flips a bit of a record's weight in a member's memory. The strings of a
// view are those of the catalog.
func (s *sim) rot(t *testing.T, m *simMember) {
	t.Helper()
	v, _ := m.c.View("web")
	value := v.Instances[0].Value
	for i := range len(value) {
		b := (*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(value)), i))
		*b ^= 1
		if in, err := record.DecodeInstance(value); err == nil && in.ID == v.Instances[0].ID && in.Weight != v.Instances[0].Weight {
			return
		}
		*b ^= 1
	}
	t.Fatal("no byte of the weight found")
}

// misread lets a member take in another weight than what the owner wrote, as a
// fault of the program would: nothing but the content is wrong with it.
func (s *sim) misread(t *testing.T, owner *simMember, at ...*simMember) {
	t.Helper()
	in := &record.Instance{Service: "web", ID: owner.id + "-a", Weight: 60_001, Addrs: simAddrs}
	it, _, err := owner.ow.Register(int64(s.now), in)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := owner.ow.Commit(int64(s.now), it)
	wrong := d
	in.Weight = 7
	it.Value, it.Seq = string(in.Append(nil)), d.To
	wrong.Items = []catalog.Item{it}
	for _, m := range at {
		if _, err := m.c.Merge(int64(s.now), &wrong); err != nil {
			t.Fatal(err)
		}
	}
	s.step(owner, func(now int64) { owner.e.local(now, &d) })
}

// TestContentHeals lets one member hold other records than their owner wrote,
// without lacking any: it takes the origin anew.
func TestContentHeals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  func(t *testing.T, s *sim, m *simMember)
		within float64
	}{
		{"memory", func(t *testing.T, s *sim, m *simMember) { s.rot(t, m) }, 60_000},
		{"misread", func(t *testing.T, s *sim, m *simMember) { s.misread(t, s.members[0], m) }, 60_000},
		{"misread, the owner is gone", func(t *testing.T, s *sim, m *simMember) {
			s.misread(t, s.members[0], m)
			s.run(s.now + 300) // the right version is everywhere else
			s.kill(s.members[0])
		}, 120_000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := describedSim(t, 40, 4)
			m := s.members[20]
			tc.fault(t, s, m)
			if !slices.Contains(s.differing(), m) && m.e.stats.Repairs == 0 {
				t.Fatal("the fault does not show")
			}
			s.run(s.now + tc.within)
			if off := s.differing(); len(off) > 0 {
				t.Errorf("%d members still differ", len(off))
			}
			if m.e.stats.Mismatches == 0 || m.e.stats.Repairs == 0 {
				t.Errorf("counted %d mismatches and %d repairs", m.e.stats.Mismatches, m.e.stats.Repairs)
			}
		})
	}
}

// TestContentLiar lets a member tell everybody of another content each second:
// nobody believes it, and the owner is asked a bounded number of times.
func TestContentLiar(t *testing.T) {
	s := describedSim(t, 40, 4)
	liar := s.members[39]
	asks := 0
	for range 600 {
		head, _ := liar.c.Head(s.members[0].ow.ID())
		head.Hash ^= 2
		body := (&have{reply: true, heads: []catalog.Head{head}}).append(nil, frameHave)
		for _, m := range s.members[1:39] {
			s.transmit(liar, send{to: m.id, body: body})
		}
		before := s.members[0].e.stats.FramesIn
		s.run(s.now + 1000)
		asks += int(s.members[0].e.stats.FramesIn - before)
	}
	for _, m := range s.members {
		if m.e.stats.Mismatches+m.e.stats.Repairs+m.e.stats.Resets > 0 {
			t.Errorf("%s believed the liar", m.id)
		}
	}
	if perSecond := float64(asks) / 600; perSecond > 38.0/5*2 {
		t.Errorf("the owner got %.1f frames a second, want at most twice what one question each 5 s makes", perSecond)
	}
}

// TestContentStorm makes half of the members hold what the owner did not write,
// again and again, as a fault of the program would. What that costs has a bound.
func TestContentStorm(t *testing.T) {
	s := describedSim(t, 40, 4)
	const minutes = 5
	for range minutes * 60 {
		s.misread(t, s.members[0], s.members[10:30]...)
		s.run(s.now + 1000)
	}
	for _, m := range s.members {
		if m.e.stats.Repairs > 5 { // after 0, 30, 90 and 210 seconds
			t.Errorf("%s repaired %d times in %d minutes", m.id, m.e.stats.Repairs, minutes)
		}
	}
	s.run(s.now + 20*60_000)
	if off := s.differing(); len(off) > 0 {
		t.Errorf("20 minutes after the last fault %d members differ", len(off))
	}
}

// TestContentFlood lets a peer claim other content of more origins than are
// doubted at once: what is remembered ends at a bound, and without evidence
// nothing is asked for.
func TestContentFlood(t *testing.T) {
	c := catalog.New()
	e := newEngine("self", "", 1)
	e.peerUp(0, "peer")
	var h have
	for i := range 2 * maxDoubts {
		d := catalog.Delta{Origin: record.OriginID{1, byte(i), byte(i >> 8)}, Epoch: 1, To: 1}
		if _, err := c.Merge(1, &d); err != nil {
			t.Fatal(err)
		}
		head, _ := c.Head(d.Origin)
		head.Hash ^= 2
		h.heads = append(h.heads, head)
	}
	for now := int64(1); now < 100_000; now += 1000 {
		for i := 0; i < len(h.heads); i += maxHeads {
			e.begin()
			e.receive(now, c, "peer", (&have{reply: true, heads: h.heads[i:min(i+maxHeads, len(h.heads))]}).append(nil, frameHave))
			e.tick(now, c)
			for _, o := range e.out {
				if o.body[0] == framePull || o.body[0] == frameAsk {
					t.Fatalf("frame of kind %d for a claim that nobody else makes", o.body[0])
				}
			}
		}
	}
	if len(e.doubts) != maxDoubts {
		t.Errorf("%d doubts remembered, want %d", len(e.doubts), maxDoubts)
	}
}
