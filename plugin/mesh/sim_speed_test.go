package mesh

import (
	"flag"
	"fmt"
	"testing"

	"github.com/fluid-sd/fluid/plugin/record"
)

var simFull = flag.Bool("sim.full", false, "run the speed table at full size")

// times is a distribution of times in milliseconds, in steps of a tenth.
type times struct {
	steps [200_000]uint32
	n     int
	lost  int // never came
}

func (d *times) add(ms float64) {
	d.steps[min(int(ms*10), len(d.steps)-1)]++
	d.n++
}

const never = 1e9

// at returns the time within which a share of all came, or never.
func (d *times) at(share float64) float64 {
	rank := int(float64(d.n+d.lost) * share)
	for i, n := range d.steps {
		if rank -= int(n); rank < 0 || rank == 0 && share == 1 {
			return float64(i) / 10
		}
	}
	return never
}

func ms(t float64) string {
	if t == never {
		return "never"
	}
	return fmt.Sprintf("%.0f", t)
}

// spread is how changes reached the members.
type spread struct {
	changes int
	each    times // of every member and change
	all     times // of every change, when all held it
}

// awaited is a change on its way.
type awaited struct {
	since float64
	has   []uint64 // one bit per member
	left  int
	sp    *spread
}

func newAwaited(sp *spread, now float64, members, writer int) *awaited {
	a := &awaited{since: now, has: make([]uint64, members/64+1), left: members, sp: sp}
	sp.changes++
	a.left--
	a.has[writer/64] |= 1 << (writer % 64)
	return a
}

// reached notes that a member holds the change.
func (a *awaited) reached(now float64, member int) {
	if bit := uint64(1) << (member % 64); a.has[member/64]&bit == 0 {
		a.has[member/64] |= bit
		a.sp.each.add(now - a.since)
		if a.left--; a.left == 0 {
			a.sp.all.add(now - a.since)
		}
	}
}

// end counts what did not come.
func (a *awaited) end() {
	a.sp.each.lost += a.left
	if a.left > 0 {
		a.sp.all.lost++
	}
}

// measure writes changes at a rate for a time and reports the distribution.
func (s *sim) measure(perSecond float64, seconds float64) *spread {
	sp := &spread{}
	type pending struct {
		*awaited
		watermark uint64
	}
	open := map[record.OriginID][]pending{}
	for _, m := range s.members {
		m.e.onLearned = func(id record.OriginID) {
			head, ok := m.c.Head(id)
			list := open[id]
			for i := 0; ok && i < len(list) && list[i].watermark <= head.Watermark; i++ {
				list[i].reached(s.now, m.index)
			}
			for len(list) > 0 && list[0].left == 0 {
				list = list[1:]
			}
			open[id] = list
		}
	}
	begin := s.now
	for i := range int(perSecond * seconds) {
		s.at(begin+float64(i)*1000/perSecond, func() {
			m := s.members[s.rng.IntN(s.cfg.origins)]
			p := pending{awaited: newAwaited(sp, s.now, len(s.members), m.index)}
			p.watermark = s.write(m, fmt.Sprint(s.rng.IntN(5))).Watermark
			open[m.ow.ID()] = append(open[m.ow.ID()], p)
		})
	}
	s.run(begin + seconds*1000 + 5000)
	for _, list := range open {
		for _, p := range list {
			p.end()
		}
	}
	return sp
}

// TestSpeed measures the time from a change to its arrival everywhere. At full
// size it is the speed table of the design.
func TestSpeed(t *testing.T) {
	type row struct {
		name             string
		members, origins int
		rate, seconds    float64
		p99, all         float64
	}
	rows := []row{{"100 members, 50 changes per s", 100, 20, 50, 5, 300, 1000}}
	if *simFull {
		rows = []row{
			{"1,000 members, 500 changes per s for a minute", 1000, 200, 500, 60, 300, 1000},
			{"10,000 members, one change at a time", 10_000, 200, 1, 20, 400, 2000},
		}
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			cfg := lan
			cfg.members, cfg.origins = r.members, r.origins
			s := newSim(cfg, *simSeed)
			s.level()
			s.run(simStart + 6000)
			s.copies, s.frames = 0, 0
			sp := s.measure(r.rate, r.seconds)
			t.Logf("seed %d, changes of %d bytes; milliseconds to each member, then to all; sends per member and change", *simSeed, s.size)
			t.Logf("%-12s %7s %7s %7s %7s %8s %7s %7s %7s %s", "", "p50", "p99", "p99.9", "worst", "all p50", "all", "copies", "frames", "not delivered")
			per := func(n int) float64 { return float64(n) / float64(sp.changes) / float64(r.members) }
			show := func(what string, sp *spread, copies, frames int) {
				t.Logf("%-12s %7s %7s %7s %7s %8s %7s %7.2f %7.2f %d of %d", what, ms(sp.each.at(0.5)), ms(sp.each.at(0.99)),
					ms(sp.each.at(0.999)), ms(sp.each.at(1)), ms(sp.all.at(0.5)), ms(sp.all.at(1)), per(copies), per(frames), sp.each.lost, sp.each.lost+sp.each.n)
			}
			show("crdt", sp, s.copies, s.frames)
			if n := per(s.copies); n > 6 {
				t.Errorf("each member sends each change %.2f times, want at most 6", n)
			}
			bare := newBareSim(cfg, *simSeed, s.size)
			s = nil // the memory of the one mesh is not needed beside the other's
			show("memberlist", bare.measure(r.rate, r.seconds), bare.copies, bare.packets)
			if p99, all := sp.each.at(0.99), sp.all.at(1); p99 > r.p99 || all > r.all {
				t.Errorf("p99 %.0f ms, all %.0f ms; want at most %.0f and %.0f", p99, all, r.p99, r.all)
			}
		})
	}
}
