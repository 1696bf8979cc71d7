package catalog

import (
	"errors"
	"fmt"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Limits of one origin.
const (
	MaxRecords = 20_000  // live records
	MaxBytes   = 8 << 20 // of their encoded values
)

var (
	// ErrDelta is returned for a delta that no honest member sends.
	ErrDelta = errors.New("invalid delta")
	// ErrLimit is returned for a delta, or a registration, that would take an
	// origin or the catalog over a limit. Nothing was changed.
	ErrLimit = errors.New("limit reached")
	// ErrReaped is returned for a delta of an epoch that was reaped.
	ErrReaped = errors.New("origin was reaped")
)

// Delta is a part of one origin's history: every record whose newest version
// has a sequence number in (From, To]. Applying it makes that range known, so
// deltas may arrive in any order and more than once.
//
// A delta with ResetTo set is a part of a reset instead: the origin's whole
// state up to ResetTo, of which this delta lists the range (From, To]. A reset
// takes effect when its parts cover (0, ResetTo], and then also removes what
// they do not list.
type Delta struct {
	Origin   record.OriginID
	Epoch    uint64 // rises with each start of the owner
	Nonce    uint64 // random per start, tells two owners of one identity apart
	Base     uint64 // the epoch counts once (0, Base] is known
	From, To uint64
	ResetTo  uint64 // 0: not a reset
	Floor    uint64 // of a reset: removals up to here may be missing from it
	Items    []Item // sorted by Seq, without duplicate keys
}

// Item is one version of one record of an origin.
type Item struct {
	Key     record.Key
	Seq     uint64
	HLC     HLC
	Born    record.Position // what the owner had applied at the explicit registration
	Value   string          // encoded record; empty if Deleted
	Vector  string          // encoded vector clock of the other claimants
	Deleted bool
}

// size is what an item counts towards frame and origin sizes, in bytes.
func (it *Item) size() int { return itemOverhead + len(it.Key) + len(it.Value) + len(it.Vector) }

// Bounded reports whether key and value are such as members take in.
func (it *Item) Bounded() bool {
	return it.Key.Kind() != 0 && len(it.Key) <= maxKey && len(it.Value) <= record.MaxEncoded && (!it.Deleted || it.Value == "")
}

// itemOverhead is at least what an item's numbers and tags take.
const itemOverhead = 48

// Size returns an upper bound of the encoded size in bytes.
func (d *Delta) Size() int {
	n := 128
	for i := range d.Items {
		n += d.Items[i].size()
	}
	return n
}

// check refuses what an honest member never sends.
func (d *Delta) check() error {
	bad := func(what string) error { return fmt.Errorf("catalog: delta of %v: %s: %w", d.Origin, what, ErrDelta) }
	switch {
	case d.Origin.IsZero():
		return bad("no origin")
	case d.Epoch == 0:
		return bad("no epoch")
	case d.From > d.To, d.From == d.To && d.ResetTo == 0:
		return bad("empty range")
	case d.ResetTo != 0 && (d.To > d.ResetTo || d.Floor > d.ResetTo):
		return bad("reset out of range")
	case len(d.Items) > MaxRecords+maxTombs:
		return bad("too many items")
	}
	last := d.From
	for i := range d.Items {
		it := &d.Items[i]
		if it.Seq <= last || it.Seq > d.To {
			return bad("sequence number out of order")
		}
		last = it.Seq
		if !it.Bounded() {
			return bad("item out of bounds")
		}
		if _, ok := decodeVector(it.Vector); !ok {
			return bad("bad vector clock")
		}
	}
	return nil
}

// maxKey bounds a key: a kind, a service and an id with their slashes, and room
// for what a newer version may add.
const maxKey = 256
