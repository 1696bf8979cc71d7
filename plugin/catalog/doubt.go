package catalog

import (
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Two members that know an origin up to the same watermark hold the same
// records. Where they do not, a fault of the memory or of the program changed
// one of them, and neither increments nor resets would ever repair that: they
// are not applied where nothing is missing. So the origin is asked for anew.

// Differs reports whether another member's copy of an origin reaches as far as
// this one and has other content. The own origin differs from nothing.
func (c *Catalog) Differs(head Head) bool {
	mine, ok := c.Head(head.Origin)
	return ok && head.Origin != c.own && mine.Compare(head) == 0 &&
		mine.Hash != 0 && head.Hash != 0 && mine.Hash != head.Hash
}

// Doubt makes the next reset of an origin replace all there is, and returns
// the request for it. Until then the copy is answered from, and not passed on.
func (c *Catalog) Doubt(id record.OriginID) (Want, bool) {
	o := c.origins[id]
	if o == nil || o.cur == nil || id == c.own {
		return Want{}, false
	}
	o.cur.doubted = true
	return Want{Origin: id, Epoch: o.cur.epoch, Nonce: o.cur.nonce, From: o.cur.watermark, Whole: true}, true
}

// Doubted reports whether a reset that Doubt asked for did not come yet.
func (c *Catalog) Doubted(id record.OriginID) bool {
	o := c.origins[id]
	return o != nil && o.cur != nil && o.cur.doubted
}

// Trust takes a doubt back: nobody could answer it.
func (c *Catalog) Trust(id record.OriginID) {
	if o := c.origins[id]; o != nil && o.cur != nil && o.cur.doubted {
		o.cur.doubted = false
		c.unstage(o.cur)
	}
}

// Scrub compares what the memory holds with what was taken in, for the origins
// that follow one in their order, until about max records were looked at. It
// returns the last origin that it looked at, to go on from, and those whose
// records changed by themselves.
func (c *Catalog) Scrub(after record.OriginID, limit int) (last record.OriginID, rotten []record.OriginID) {
	ids := c.OriginIDs()
	i, found := slices.BinarySearchFunc(ids, after, compareOrigins)
	if found {
		i++
	}
	for n := 0; n < len(ids) && limit > 0; n++ {
		last = ids[(i+n)%len(ids)]
		h := c.origins[last].cur
		if h == nil {
			continue
		}
		limit -= 1 + len(h.log)
		if h.contentHash() != h.hash {
			rotten = append(rotten, last)
		}
	}
	return last, rotten
}

// contentHash computes anew what is kept in step in hash.
func (h *history) contentHash() uint64 {
	sum := uint64(0)
	for _, cl := range h.log {
		if !cl.intact() {
			return h.hash + 1
		}
		sum += cl.sum()
	}
	return sum
}

// intact reports whether a claim still has a key.
func (c *claim) intact() bool {
	return c.in == nil || len(c.value) >= 2 && len(c.value) >= 2+int(c.value[1])
}

// Owner returns the id of the member that writes an origin, as its header says.
func (c *Catalog) Owner(id record.OriginID) string {
	if o := c.origins[id]; o != nil && o.cur != nil {
		return o.cur.node.ID
	}
	return ""
}

// renew makes a complete reset all there is of a doubted history, up to where
// the reset ends. What was there up to then is not looked at: it may be broken
// in any way.
func (c *Catalog) renew(h *history, st *staging, t *touched) {
	old := *h
	var above []Item
	for _, cl := range h.log {
		if cl.seq > st.to && cl.intact() {
			above = append(above, cl.item())
		} else if cl.seq > st.to {
			above, old.spans = nil, nil // they come again
			break
		}
	}
	c.discard(h, t)
	*h = history{id: old.id, epoch: old.epoch, nonce: old.nonce, base: old.base, shown: old.shown, floor: st.floor}
	for i := range st.items {
		c.admit(h, &st.items[i], t)
	}
	h.learn(0, st.to)
	for i := range above {
		c.admit(h, &above[i], t)
	}
	for _, s := range old.spans {
		h.learn(min(s.to, max(s.from, st.to)), s.to)
	}
	t.addHeader(h.id)
}
