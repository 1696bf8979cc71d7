package catalog

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// MaxDrift is how far ahead of the local clock, in milliseconds, a remote
// timestamp may be and still be adopted.
const MaxDrift = 500

// HLC is a hybrid logical time: 48 bits of milliseconds since the Unix epoch
// and 16 bits of counter.
type HLC uint64

// Millis returns the physical part.
func (h HLC) Millis() int64 { return int64(h >> 16) }

// Clock makes hybrid logical times that never go back. The zero Clock is ready.
type Clock struct{ last HLC }

// Restore makes the next time come after h, which a previous process used.
func (k *Clock) Restore(h HLC) { k.last = max(k.last, h) }

// Next returns a time after every one it returned or observed before. now is
// in milliseconds.
func (k *Clock) Next(now int64) HLC {
	k.last = max(k.last+1, HLC(max(now, 0))<<16)
	return k.last
}

// Observe takes note of a remote time, unless it is more than MaxDrift ahead
// of now, and reports whether it did.
func (k *Clock) Observe(now int64, h HLC) bool {
	if h.Millis() > now+MaxDrift {
		return false
	}
	k.last = max(k.last, h)
	return true
}

// maxClock bounds the claimants that a vector clock lists.
const maxClock = 8

// tick is one component of a vector clock: the newest version of a logical
// instance that its writer had seen from one origin.
type tick struct {
	origin record.OriginID
	hlc    HLC
}

// vector is a vector clock over the origins that claimed one logical instance,
// the version's own origin left out: that component is the version's own time.
type vector []tick

const tickSize = 16 + 8

// decodeVector reads a vector; it reports false for bytes that are none.
func decodeVector(s string) (vector, bool) {
	if len(s)%tickSize != 0 || len(s) > maxClock*tickSize {
		return nil, false
	}
	var v vector
	for ; s != ""; s = s[tickSize:] {
		var t tick
		copy(t.origin[:], s)
		t.hlc = HLC(binary.BigEndian.Uint64([]byte(s[16:tickSize])))
		v = append(v, t)
	}
	return v, true
}

// encode keeps the latest components, ordered by origin so that equal vectors
// have equal bytes.
func (v vector) encode() string {
	v = slices.Clone(v)
	slices.SortFunc(v, func(a, b tick) int {
		return cmp.Or(cmp.Compare(b.hlc, a.hlc), slices.Compare(a.origin[:], b.origin[:]))
	})
	v = v[:min(len(v), maxClock-1)]
	slices.SortFunc(v, func(a, b tick) int { return slices.Compare(a.origin[:], b.origin[:]) })
	var b []byte
	for _, t := range v {
		b = append(b, t.origin[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(t.hlc))
	}
	return string(b)
}

// seen returns the time of the newest version of the origin that the vector
// covers; 0 if none.
func (v vector) seen(o record.OriginID) HLC {
	for _, t := range v {
		if t.origin == o {
			return t.hlc
		}
	}
	return 0
}

// with adds a component, keeping the greater time of each origin.
func (v vector) with(t tick) vector {
	for i := range v {
		if v[i].origin == t.origin {
			v[i].hlc = max(v[i].hlc, t.hlc)
			return v
		}
	}
	return append(v, t)
}

// supersedes reports whether the writer of a had seen b.
func supersedes(a, b *claim) bool {
	if a.from.id == b.from.id {
		return compareVersions(a, b) > 0
	}
	v, _ := decodeVector(a.extra)
	return v.seen(b.from.id) >= b.hlc
}
