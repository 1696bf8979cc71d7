package catalog

import (
	"fmt"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// mutation names a rule of the merge that tests switch off, to show that it is
// needed. Nothing else sets it.
type mutation uint8

const (
	applyKnown            mutation = 1 + iota // rule 1 off: an entry is applied although its number is known
	collectAboveWatermark                     // rule 2 off: any tombstone is collected, the floor stays
	incrementBelowFloor                       // rule 3 off: a reader below the floor gets an increment
	vectorClockFirst                          // the winner is picked by vector clock, then by time
)

// Merged says what a delta did.
type Merged struct {
	Changes Changes
	// Learned is false if everything in the delta was known before; such a
	// delta is not worth passing on.
	Learned bool
	// Cloned is true if the delta claims to be this member's own origin, and is
	// not something this process published: somebody else has its identity.
	Cloned bool
}

// Merge takes in a part of an origin's history. now is in milliseconds. Merge
// is commutative, associative and idempotent: members that took in the same
// deltas hold the same state, whatever the order and the repetitions.
//
// It returns an error that wraps ErrDelta, ErrLimit or ErrReaped for a delta
// that was not taken in; nothing was changed then.
func (c *Catalog) Merge(now int64, d *Delta) (Merged, error) {
	if err := d.check(); err != nil {
		return Merged{}, err
	}
	if d.Epoch <= c.slot.retired[d.Origin] {
		return Merged{}, fmt.Errorf("catalog: delta of %v, epoch %d: %w", d.Origin, d.Epoch, ErrReaped)
	}
	o := c.origins[d.Origin]
	if d.Origin == c.own && o != nil && o.cur != nil {
		issued := o.cur.compare(d.Epoch, d.Nonce)
		return Merged{Cloned: issued < 0 || issued == 0 && d.To > o.cur.watermark}, nil
	}
	if o == nil {
		if len(c.origins) >= c.limits.Origins {
			return Merged{}, fmt.Errorf("catalog: origin %v is one too many: %w", d.Origin, ErrLimit)
		}
		o = &origin{id: d.Origin, learned: now}
	}
	h, err := o.target(d)
	if h == nil || err != nil {
		return Merged{}, err
	}
	t := newTouched()
	learned, err := c.take(h, d, t)
	if err != nil {
		return Merged{}, err
	}
	c.origins[o.id] = o
	if h != o.cur {
		c.stage(o, h, t)
	}
	for i := range d.Items {
		o.skewed = o.skewed || d.Items[i].HLC.Millis() > now+MaxDrift
	}
	c.settle(now, t)
	return Merged{Changes: t.changes(), Learned: learned}, nil
}

// target returns the history that a delta belongs to, a new one if it opens an
// epoch, or nil if the delta is of an epoch that is over.
func (o *origin) target(d *Delta) (*history, error) {
	for i, h := range o.histories() {
		switch order := h.compare(d.Epoch, d.Nonce); {
		case order > 0 && i == 0 && h == o.cur:
			return nil, nil
		case order == 0 && h.base != d.Base:
			return nil, fmt.Errorf("catalog: delta of %v: two bases for one epoch: %w", d.Origin, ErrDelta)
		case order == 0:
			return h, nil
		}
	}
	return &history{id: d.Origin, epoch: d.Epoch, nonce: d.Nonce, base: d.Base}, nil
}

// stage keeps a newer epoch beside the one that counts, until it is complete
// and takes its place. Of too many the oldest is dropped; it is pulled again
// if it turns out to be needed.
func (c *Catalog) stage(o *origin, h *history, t *touched) {
	i, found := slices.BinarySearchFunc(o.staged, h, func(a, b *history) int { return a.compare(b.epoch, b.nonce) })
	if !found {
		o.staged = slices.Insert(o.staged, i, h)
	}
	if h.complete() {
		c.promote(o, i, t)
	} else if len(o.staged) > maxStage {
		c.discard(o.staged[0], t)
		o.staged = slices.Delete(o.staged, 0, 1)
	}
}

// take applies a delta to its history.
func (c *Catalog) take(h *history, d *Delta, t *touched) (learned bool, err error) {
	if d.ResetTo != 0 {
		return c.takeReset(h, d, t)
	}
	if h.covers(d.From, d.To) && c.mutation != applyKnown {
		return false, nil
	}
	var fresh []*Item
	for i := range d.Items {
		// Rule 1: a late duplicate must not bring back what a collected
		// tombstone removed.
		if it := &d.Items[i]; !h.known(it.Seq) || c.mutation == applyKnown {
			fresh = append(fresh, it)
		}
	}
	if err := c.fits(h, fresh); err != nil {
		return false, err
	}
	if !h.learn(d.From, d.To) {
		return false, nil // too many gaps; the range is pulled when they close
	}
	for _, it := range fresh {
		c.admit(h, it, t)
	}
	return true, nil
}

// fits reports why items would take an origin or the catalog over a limit.
func (c *Catalog) fits(h *history, items []*Item) error {
	live, bytes, weight := h.live, h.bytes, 0
	for _, it := range items {
		weight += claimWeight + len(it.Value) + len(it.Vector)
		old := c.lookup(h, it.Key)
		if old != nil && !old.dead {
			live--
			bytes -= len(old.value)
			weight -= old.weight()
		}
		if !it.Deleted {
			live++
			bytes += len(it.Value)
		}
	}
	switch {
	case live > MaxRecords && live > h.live:
		return fmt.Errorf("catalog: origin %v: %d records exceed %d: %w", h.id, live, MaxRecords, ErrLimit)
	case bytes > MaxBytes && bytes > h.bytes:
		return fmt.Errorf("catalog: origin %v: %d bytes exceed %d: %w", h.id, bytes, MaxBytes, ErrLimit)
	case len(h.log)+len(items) > MaxRecords+4*maxTombs:
		return fmt.Errorf("catalog: origin %v: too many tombstones: %w", h.id, ErrLimit)
	case weight > 0 && c.bytes+weight > c.limits.Bytes:
		return fmt.Errorf("catalog: %d bytes of gossip: %w", c.limits.Bytes, ErrLimit)
	}
	return nil
}

// takeReset collects the parts of a reset and applies it when it is whole.
func (c *Catalog) takeReset(h *history, d *Delta, t *touched) (learned bool, err error) {
	if d.ResetTo < h.watermark || d.ResetTo == h.watermark && !h.doubted {
		return false, nil
	}
	st := h.reset
	if st == nil || st.to < d.ResetTo || st.to == d.ResetTo && st.floor < d.Floor {
		c.unstage(h)
		st = &staging{to: d.ResetTo, floor: d.Floor}
	} else if st.to != d.ResetTo || st.floor != d.Floor {
		return false, nil // a part of an older reset
	}
	if slices.ContainsFunc(st.spans, func(s span) bool { return s.from <= d.From && d.To <= s.to }) {
		return false, nil
	}
	spans, ok := addSpan(st.spans, span{d.From, d.To})
	values, weight := st.values, 0
	for i := range d.Items {
		values += len(d.Items[i].Value)
		weight += claimWeight + len(d.Items[i].Value) + len(d.Items[i].Key) + len(d.Items[i].Vector)
	}
	if !ok || len(st.items)+len(d.Items) > MaxRecords+4*maxTombs || values > MaxBytes || c.bytes+weight > c.limits.Bytes {
		return false, fmt.Errorf("catalog: reset of %v: %w", h.id, ErrLimit)
	}
	st.spans, st.values = spans, values
	st.weight += weight
	c.bytes += weight
	st.items = append(st.items, d.Items...)
	h.reset = st
	if len(spans) == 1 && spans[0].from == 0 && spans[0].to == st.to {
		c.unstage(h)
		if h.doubted {
			c.renew(h, st, t)
		} else {
			c.applyReset(h, st, t)
		}
	}
	return true, nil
}

// unstage drops an unfinished reset.
func (c *Catalog) unstage(h *history) {
	if h.reset != nil {
		c.bytes -= h.reset.weight
		h.reset = nil
	}
}

// applyReset makes a complete reset the history's state up to st.to: what it
// does not list is gone, what is newer stays.
func (c *Catalog) applyReset(h *history, st *staging, t *touched) {
	listed := make(map[record.Key]bool, len(st.items))
	for i := range st.items {
		listed[st.items[i].Key] = true
	}
	for _, cl := range slices.Clone(h.log) {
		if cl.seq <= st.to && !listed[cl.key()] {
			c.evict(cl, t)
		}
	}
	for i := range st.items {
		c.admit(h, &st.items[i], t)
	}
	h.learn(0, st.to)
	h.floor = max(h.floor, st.floor)
}

// promote lets the complete epoch staged[i] take the place of the one that
// counted.
func (c *Catalog) promote(o *origin, i int, t *touched) {
	over := append(slices.Clone(o.staged[:i]), o.cur)
	o.cur = o.staged[i]
	o.staged = slices.Delete(o.staged, 0, i+1)
	o.cur.shown = true
	for _, cl := range o.cur.log {
		c.touch(cl, t)
	}
	for _, h := range over {
		if h != nil {
			c.discard(h, t)
		}
	}
	t.addHeader(o.id)
}

// discard forgets a history. It finds the claims in their cells by whose they
// are: in a history that is in doubt their ids may be anything.
func (c *Catalog) discard(h *history, t *touched) {
	cells := map[*cell]bool{}
	for _, cl := range h.log {
		c.touch(cl, t)
		if cl.in != nil {
			cells[cl.in] = true
		}
		c.bytes -= cl.weight()
	}
	for ce := range cells {
		ce.claims = slices.DeleteFunc(ce.claims, func(cl *claim) bool { return cl.from == h })
		if len(ce.claims) == 0 {
			delete(c.cells, ce.name)
		}
	}
	c.unstage(h)
	h.shown, h.log, h.opaque = false, nil, nil
}

// Collect forgets old tombstones. now is in milliseconds.
func (c *Catalog) Collect(now int64) Changes {
	t := newTouched()
	for _, o := range c.origins {
		for _, h := range o.histories() {
			c.collect(h, now, t)
		}
	}
	c.settle(now, t)
	return t.changes()
}
