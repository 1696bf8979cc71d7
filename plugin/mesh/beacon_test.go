package mesh

import (
	"testing"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// TestBeacons lets the owners of a mesh at rest be heard: every member measures
// how fast changes would come, and it costs little.
func TestBeacons(t *testing.T) {
	cfg := lan
	cfg.members, cfg.origins = 100, 20
	s := newSim(cfg, *simSeed)
	s.level()
	s.run(simStart + 30_000)
	var before []int
	for _, m := range s.members {
		before = append(before, m.sends)
		m.e.stats.Propagation = Histogram{}
	}
	const minutes = 5
	s.run(s.now + minutes*60_000)
	all := Histogram{}
	for i, m := range s.members {
		h := m.e.stats.Propagation
		others := cfg.origins
		if m.ow != nil {
			others--
		}
		// One each 10 seconds, give or take 20 %, of which few are lost.
		if got, want := float64(h.Count), float64(others*minutes*6); got < want*0.9 || got > want*1.1 {
			t.Errorf("%s measured %v beacons, want about %v", m.id, got, want)
		}
		all.Count += h.Count
		all.Sum += h.Sum
		for j, n := range h.Counts {
			all.Counts[j] += n
		}
		// 2 beacons a second in all, 5 sends of each; digests and heads are less.
		if perSecond := float64(m.sends-before[i]) / (minutes * 60); perSecond > 15 {
			t.Errorf("%s sends %.1f frames a second at rest", m.id, perSecond)
		}
	}
	b := all.Buckets()
	if b[0.3] < all.Count*99/100 || b[0.01] > all.Count/2 {
		t.Errorf("of %d, %d came within 0.3 s and %d within 0.01 s", all.Count, b[0.3], b[0.01])
	}
	if mean := all.Sum / float64(all.Count); mean < 0.01 || mean > 0.15 {
		t.Errorf("the mean is %.3f s", mean)
	}
}

// TestBeaconsRare bounds what the beacons of a large mesh cost.
func TestBeaconsRare(t *testing.T) {
	for _, tc := range []struct {
		passive bool
		origins int
		want    int64 // milliseconds between two beacons of one owner
	}{{false, 1, 10_000}, {false, 1000, 200_000}, {true, 1, 50_000}, {true, 1000, 1_000_000}} {
		c := catalog.New()
		if _, _, err := c.Own(1000, record.OriginID{1}, 1, 1, nil); err != nil {
			t.Fatal(err)
		}
		for i := range tc.origins - 1 {
			d := catalog.Delta{Origin: record.OriginID{2, byte(i), byte(i >> 8)}, Epoch: 1, To: 1}
			if _, err := c.Merge(1000, &d); err != nil {
				t.Fatal(err)
			}
		}
		e := newEngine("a", "", 1)
		e.passive = tc.passive
		e.shine(1000, c)
		if got := e.nextBeacon - 1000; got < tc.want*4/5 || got > tc.want*6/5 {
			t.Errorf("%d origins, passive %v: the next beacon after %d ms, want about %d", tc.origins, tc.passive, got, tc.want)
		}
	}
}

// TestBeaconClocks takes the ages of beacons only where the clocks allow it, and
// each beacon once.
func TestBeaconClocks(t *testing.T) {
	const now = 100_000_000
	id := record.OriginID{1}
	c := catalog.New()
	if _, err := c.Merge(now, &catalog.Delta{Origin: id, Epoch: 1, To: 1}); err != nil {
		t.Fatal(err)
	}
	e := newEngine("a", "", 1)
	e.peerUp(now, "b")
	receive := func(at, made int64, origin record.OriginID) {
		from := newEngine("b", "", 2)
		from.relay(at, beacon{origin, made})
		e.begin()
		e.receive(at, c, "b", from.takeBeacons())
	}
	for _, tc := range []struct {
		name         string
		at, made     int64
		origin       record.OriginID
		count, clock uint64
		sum          float64
		passedOn     int
	}{
		{name: "ahead by little counts as no time", at: now, made: now + 400, origin: id, count: 1, passedOn: 1},
		{name: "the same again", at: now, made: now + 400, origin: id, count: 1, passedOn: 1},
		{name: "older", at: now, made: now - 10, origin: id, count: 1, passedOn: 1},
		{name: "in time", at: now + 10_000, made: now + 9900, origin: id, count: 2, sum: 0.1, passedOn: 2},
		{name: "of nobody known", at: now + 10_000, made: now + 9900, origin: record.OriginID{9}, count: 2, sum: 0.1, passedOn: 2},
		{name: "an hour ahead", at: now + 20_000, made: now + 3_620_000, origin: id, count: 2, sum: 0.1, clock: 1, passedOn: 3},
	} {
		receive(tc.at, tc.made, tc.origin)
		p := e.stats.Propagation
		if p.Count != tc.count || p.Sum != tc.sum || e.stats.Dropped["clock"] != tc.clock || len(e.beacons) != tc.passedOn {
			t.Errorf("%s: %d counted, %v s, %d clocks, %d passed on; want %d, %v, %d, %d", tc.name,
				p.Count, p.Sum, e.stats.Dropped["clock"], len(e.beacons), tc.count, tc.sum, tc.clock, tc.passedOn)
		}
	}
	// Its clock is set right; once the wrong time is forgotten it is heard again.
	later := int64(now + 20_000 + beaconMemory + 1)
	e.shine(later, c)
	receive(later, later-200, id)
	if got := e.stats.Propagation.Count; got != 3 {
		t.Errorf("after the clock was set right %d are counted, want 3", got)
	}
	e.begin()
	e.receive(later, c, "b", []byte{frameBeacon, 1, 2})
	if e.stats.Dropped["malformed"] != 1 {
		t.Error("half a beacon was taken")
	}
}
