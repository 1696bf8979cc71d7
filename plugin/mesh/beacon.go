package mesh

import (
	"encoding/binary"
	"math"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// A member that owns an origin sends a beacon now and then, along the way of
// its changes: to a few, who pass it on once. How old it is where it arrives
// tells how fast changes travel, also while nobody writes. A beacon that is
// lost is not repaired, and the age holds the difference of the two clocks.
const (
	beaconEvery  = 10_000  // at most so often
	beaconShare  = 200     // and so often in the whole mesh
	beaconSlower = 5       // times, where memberlist carries the data
	beaconMemory = 600_000 // a writer that was silent so long may start over
	maxBeaconAge = 60_000  // an older one says that clocks are wrong
	frameBeacons = 40      // in one frame, which memberlist must be able to carry
	maxBeacons   = 4096    // waiting to be passed on
)

// PropagationBounds are the upper bounds, in seconds, of the buckets of
// Stats.Propagation.
var PropagationBounds = [...]float64{0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 30}

// Histogram counts times by PropagationBounds. It is a value.
type Histogram struct {
	Counts [len(PropagationBounds)]uint64 // not cumulative; what is above all bounds is in Count alone
	Count  uint64
	Sum    float64 // seconds
}

func (h *Histogram) observe(seconds float64) {
	h.Count++
	h.Sum += seconds
	for i, bound := range PropagationBounds {
		if seconds <= bound {
			h.Counts[i]++
			return
		}
	}
}

// Buckets returns how many times were at most as long as each bound.
func (h *Histogram) Buckets() map[float64]uint64 {
	out := make(map[float64]uint64, len(PropagationBounds))
	sum := uint64(0)
	for i, bound := range PropagationBounds {
		sum += h.Counts[i]
		out[bound] = sum
	}
	return out
}

// beacon says that an origin's owner was there at a time of its clock.
type beacon struct {
	origin record.OriginID
	made   int64
}

// sighting is the newest beacon of an origin that came here.
type sighting struct{ made, at int64 }

// shine makes this member's own beacon, if it owns an origin.
func (e *engine) shine(now int64, c *catalog.Catalog) {
	own, origins := c.OwnOrigin()
	every := int64(max(beaconEvery, origins*beaconShare))
	if e.passive {
		every *= beaconSlower
	}
	e.nextBeacon = now + e.about(every)
	if !own.IsZero() {
		e.relay(now, beacon{own, now})
	}
	for id, s := range e.sighted {
		if now > s.at+beaconMemory {
			delete(e.sighted, id)
		}
	}
}

// relay queues a beacon to be passed on with what was learned.
func (e *engine) relay(now int64, b beacon) {
	if len(e.beacons) >= maxBeacons {
		e.drop("beacons")
		return
	}
	e.beacons = append(e.beacons, b)
	e.nextPush = earlier(e.nextPush, max(now+pushDelay, e.lastPush+pushEvery))
}

// takeBeacons returns a frame of what waits; nil if nothing does.
func (e *engine) takeBeacons() []byte {
	if len(e.beacons) == 0 {
		return nil
	}
	n := min(len(e.beacons), frameBeacons)
	body := []byte{frameBeacon}
	for _, b := range e.beacons[:n] {
		body = append(body, b.origin[:]...)
		body = binary.AppendUvarint(body, uint64(b.made))
	}
	if e.beacons = e.beacons[n:]; len(e.beacons) == 0 {
		e.beacons = nil
	}
	return body
}

// onBeacons takes in beacons of origins that the catalog knows; the newest of
// each counts once and goes on once.
func (e *engine) onBeacons(now int64, c *catalog.Catalog, body []byte) error {
	own, _ := c.OwnOrigin()
	for len(body) > 0 {
		var b beacon
		if len(body) < len(b.origin) {
			return errFrame
		}
		body = body[copy(b.origin[:], body):]
		made, n := binary.Uvarint(body)
		if n <= 0 || made > math.MaxInt64 {
			return errFrame
		}
		b.made, body = int64(made), body[n:]
		if _, known := c.Head(b.origin); !known || b.origin == own || b.made <= e.sighted[b.origin].made {
			continue
		}
		e.sighted[b.origin] = sighting{b.made, now}
		switch age := now - b.made; {
		case age < -catalog.MaxDrift || age > maxBeaconAge:
			e.drop("clock")
		default:
			e.stats.Propagation.observe(float64(max(age, 0)) / 1000)
		}
		e.relay(now, b)
	}
	return nil
}
