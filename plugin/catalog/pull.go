package catalog

import (
	"cmp"
	"maps"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Head is how far a member knows one origin.
type Head struct {
	Origin       record.OriginID
	Epoch, Nonce uint64
	Watermark    uint64
	// Hash is the content hash of the live records; members with equal
	// watermarks hold equal records. 0: unknown, because something above the
	// watermark is known already, or the content is in doubt.
	Hash uint64
}

// Compare orders the knowledge of one origin. The content does not count.
func (h Head) Compare(g Head) int {
	return cmp.Or(cmp.Compare(h.Epoch, g.Epoch), cmp.Compare(h.Nonce, g.Nonce), cmp.Compare(h.Watermark, g.Watermark))
}

// Heads returns the head of every origin that counts, sorted by origin.
func (c *Catalog) Heads() []Head {
	out := make([]Head, 0, len(c.origins))
	for _, o := range c.origins {
		if o.cur != nil {
			out = append(out, o.head())
		}
	}
	slices.SortFunc(out, func(a, b Head) int { return compareOrigins(a.Origin, b.Origin) })
	return out
}

func (o *origin) head() Head {
	h := Head{Origin: o.id, Epoch: o.cur.epoch, Nonce: o.cur.nonce, Watermark: o.cur.watermark}
	if len(o.cur.spans) == 0 && !o.cur.doubted {
		h.Hash = o.cur.hash | 1
	}
	return h
}

// Head returns the head of one origin; false if nothing of it counts.
func (c *Catalog) Head(id record.OriginID) (Head, bool) {
	o := c.origins[id]
	if o == nil || o.cur == nil {
		return Head{}, false
	}
	return o.head(), true
}

// Want is a request for what a member lacks of one origin: all that comes
// after From in the epoch.
type Want struct {
	Origin       record.OriginID
	Epoch, Nonce uint64 // as far as the reader got; 0: it has nothing
	From         uint64
	Whole        bool // everything anew, as a reset: the reader doubts what it has
}

// Missing returns what this catalog lacks compared with another member's head.
func (c *Catalog) Missing(head Head) (Want, bool) {
	if head.Origin == c.own || head.Epoch <= c.slot.retired[head.Origin] {
		return Want{}, false
	}
	w := Want{Origin: head.Origin}
	o := c.origins[head.Origin]
	if o == nil {
		return w, len(c.origins) < c.limits.Origins
	}
	for _, h := range o.histories() {
		switch order := h.compare(head.Epoch, head.Nonce); {
		case order > 0 && h == o.cur:
			return Want{}, false
		case order == 0:
			return Want{Origin: head.Origin, Epoch: h.epoch, Nonce: h.nonce, From: h.watermark}, h.watermark < head.Watermark
		}
	}
	return w, true
}

// Pull answers a request: increments, oldest first, or a reset if the reader
// is below the floor or in another epoch. Increments end after about max bytes;
// a reset is always whole, and so is at least one delta. Each delta holds at
// most 64 KiB of items.
func (c *Catalog) Pull(w Want, maxBytes int) []Delta {
	o := c.origins[w.Origin]
	if o == nil || o.cur == nil {
		return nil
	}
	h := o.cur
	switch order := h.compare(w.Epoch, w.Nonce); {
	case order < 0:
		return nil
	case order > 0:
		w.From = 0
	}
	if w.From >= h.watermark && !w.Whole || h.doubted {
		return nil
	}
	d := Delta{Origin: h.id, Epoch: h.epoch, Nonce: h.nonce, Base: h.base, From: w.From}
	// Rule 3: the tombstones below the floor are gone, so an increment would
	// leave removed records standing.
	if w.Whole || w.From < h.floor && c.mutation != incrementBelowFloor {
		d.From, d.ResetTo, d.Floor = 0, h.watermark, h.floor
	}
	var out []Delta
	size, total := 0, 0
	for _, cl := range h.log {
		if cl.seq <= d.From || cl.seq > h.watermark {
			continue
		}
		it := cl.item()
		if size > 0 && size+it.size() > partSize {
			d.To = d.Items[len(d.Items)-1].Seq
			out = append(out, d)
			if total += size; total >= maxBytes && d.ResetTo == 0 {
				return out
			}
			d.From, d.Items, size = d.To, nil, 0
		}
		d.Items = append(d.Items, it)
		size += it.size()
	}
	d.To = h.watermark
	return append(out, d)
}

// OriginIDs returns every origin the catalog holds anything of, sorted.
func (c *Catalog) OriginIDs() []record.OriginID {
	return slices.SortedFunc(maps.Keys(c.origins), compareOrigins)
}
