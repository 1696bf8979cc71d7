package mesh

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

var simRuns = flag.Int("sim.runs", 3, "fault schedules to simulate")

// TestFaults lets a mesh change under loss, duplication, skewed clocks, a
// partition and crashes. When that ends, all members must agree within 30 s.
func TestFaults(t *testing.T) {
	for run := range *simRuns {
		seed := *simSeed + uint64(run)
		if err := faults(seed); err != nil {
			t.Fatalf("replay with -run TestFaults -sim.runs 1 -sim.seed %d\n%v", seed, err)
		}
	}
}

func faults(seed uint64) error {
	cfg := simConfig{
		members: 30, origins: 8, loss: 0.3, latency: [2]float64{1, 80}, bandwidth: 1000, dup: 0.1, skew: 3_600_000,
	}
	s := newSim(cfg, seed)
	for round := range 20 {
		for range 20 {
			m := s.members[s.rng.IntN(cfg.origins)]
			if m.down {
				continue
			}
			s.write(m, fmt.Sprint(s.rng.IntN(6)))
			s.run(s.now + float64(s.rng.IntN(200)))
		}
		switch round % 4 {
		case 0: // halves
			for _, m := range s.members {
				s.side[m.id] = s.rng.IntN(2)
			}
		case 1:
			s.crash(s.members[cfg.origins+s.rng.IntN(cfg.members-cfg.origins)], s.rng.IntN(2) == 0)
		case 2:
			clear(s.side)
		}
		for _, m := range s.members {
			m.c.Collect(int64(s.now) + m.skew + int64(s.rng.IntN(2))*11*60_000)
		}
	}
	clear(s.side)
	s.cfg.loss, s.cfg.bandwidth = 0.01, lan.bandwidth
	for _, m := range s.members {
		m.down = false
		s.arm(m)
	}
	s.run(s.now + 30_000)
	want := fmt.Sprint(s.members[0].c.Heads())
	view := simView(s.members[0].c)
	for _, m := range s.members {
		if got := fmt.Sprint(m.c.Heads()); got != want {
			return fmt.Errorf("%s knows\n%s\nwant\n%s", m.id, got, want)
		}
		if got := simView(m.c); got != view {
			return fmt.Errorf("%s answers\n%s\nwant\n%s", m.id, got, view)
		}
	}
	return nil
}

// crash stops a member that writes nothing; it forgets everything, or wakes up
// with what it had.
func (s *sim) crash(m *simMember, forget bool) {
	if m.down {
		m.down = false
		s.arm(m)
		return
	}
	m.down = true
	if forget {
		m.c = catalog.New()
		peers := m.e.peers
		m.e = newEngine(m.id, "", s.rng.Uint64())
		m.e.peers = peers
		m.e.refill()
		m.due = 0
	}
}

// kill stops a member for good; the others know.
func (s *sim) kill(m *simMember) {
	m.down = true
	for _, o := range s.members {
		if o != m {
			o.e.peers = slices.Clone(o.e.peers) // one list serves all
			o.e.peerDown(m.id)
		}
	}
}

func simView(c *catalog.Catalog) string {
	v, ok := c.View("web")
	if !ok {
		return "none"
	}
	out := ""
	for _, in := range v.Instances {
		out += fmt.Sprintf("%s %d\n", in.ID, in.Weight)
	}
	return out
}
