package catalog

import (
	"fmt"
	"strings"
	"testing"
)

func (ce *cell) all() []*claim {
	if ce == nil {
		return nil
	}
	return ce.claims
}

// content is a text of all that members must agree on: live records, heads,
// answers.
func content(c *Catalog) string {
	var b strings.Builder
	for _, h := range c.Heads() {
		o := c.origins[h.Origin].cur
		fmt.Fprintf(&b, "%v %d/%x W=%d hash=%x\n", h.Origin, h.Epoch, h.Nonce, h.Watermark, o.hash)
		for _, cl := range o.log {
			if !cl.dead {
				fmt.Fprintf(&b, "  %s seq %d\n", cl.key(), cl.seq)
			}
		}
	}
	if v, ok := c.View("web"); ok {
		for _, in := range v.Instances {
			fmt.Fprintf(&b, "answer %s %x\n", in.ID, in.Value)
		}
	}
	return b.String()
}

// runSchedule runs one seed.
func runSchedule(seed uint64, m mutation) (s *schedule, err error) {
	s = newSchedule(seed, m)
	for range 60 + s.rng.IntN(60) {
		s.step()
	}
	return s, s.finish()
}

func TestSchedules(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+uint64(*schedules); seed++ {
		if s, err := runSchedule(seed, 0); err != nil {
			t.Fatalf("replay with -run TestSchedules -schedules 1 -seed %d\n%v\n%s", seed, err, strings.Join(s.log, "\n"))
		}
	}
	t.Logf("%d schedules from seed %d", *schedules, *firstSeed)
}

// mustFail runs schedules without one rule until one fails.
func mustFail(t *testing.T, m mutation) {
	t.Helper()
	const limit = 20_000
	for seed := range uint64(limit) {
		if _, err := runSchedule(seed, m); err != nil {
			t.Logf("seed %d fails as it should: %.60s", seed, err)
			return
		}
	}
	t.Errorf("%d schedules passed without the rule", limit)
}

// TestRule1Needed shows that applying known numbers again brings removed
// records back.
func TestRule1Needed(t *testing.T) { mustFail(t, applyKnown) }

// TestRule2Needed shows that collecting tombstones above the watermark, without
// raising the floor, leaves removed records standing elsewhere.
func TestRule2Needed(t *testing.T) { mustFail(t, collectAboveWatermark) }

// TestRule3Needed shows that an increment is not enough below the floor.
func TestRule3Needed(t *testing.T) { mustFail(t, incrementBelowFloor) }
