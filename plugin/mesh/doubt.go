package mesh

import (
	"slices"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Repair of an origin's content. Two members that know an origin equally far
// and hold different records do not know which of them is wrong; its owner
// does. So the owner's head is asked for, and if that differs too, the origin is
// pulled from it anew. Without the owner, two members that agree against this
// one are believed. One repair runs at a time, and each makes the next of that
// origin wait longer, so that a fault that comes back, or a peer that makes one
// up, costs little.
const (
	scrubRecords = 5000             // checked with each digest
	doubtSpread  = 10_000           // a repair begins at random within this time: a fault may be everywhere at once
	doubtWait    = 30_000           // from one repair of an origin to the next, at first
	doubtWaitMax = 60 * 60_000      // and at most
	doubtAsk     = 5000             // from one question to the owner to the next
	doubtForget  = 2 * doubtWaitMax // after the last sign
	maxDoubts    = 1024             // origins in doubt at once
	repairWithin = 10_000           // an answer that takes longer does not come
)

// doubt is what speaks against this member's copy of an origin.
type doubt struct {
	witness string // said something else
	hash    uint64 // this
	at      int64  // when
	asked   int64  // when the owner was last asked
	peer    string // whom to pull from; empty: the evidence is not enough
	due     int64  // when
	wait    int64  // from the last repair to the next
	next    int64  // no repair before
}

// repairing is the repair under way.
type repairing struct {
	origin record.OriginID
	due    int64 // 0: none; when to give up
}

// compareContent looks at a head that reaches as far as the own copy.
func (e *engine) compareContent(now int64, c *catalog.Catalog, peer string, head catalog.Head) {
	if e.passive || peer == "" || !c.Differs(head) {
		return
	}
	owner := c.Owner(head.Origin)
	d := e.doubts[head.Origin]
	if d == nil {
		if len(e.doubts) >= maxDoubts {
			return // a digest finds it again
		}
		d = &doubt{wait: doubtWait}
		e.doubts[head.Origin] = d
	}
	switch {
	case peer == owner:
		e.plan(now, d, owner)
	case e.knows(owner):
		if now >= d.asked+doubtAsk {
			d.asked = now
			e.send(owner, catalog.AppendHeads([]byte{frameAsk}, []catalog.Head{head}), urgentControl)
		}
	case d.witness != "" && d.witness != peer && d.hash == head.Hash && now < d.at+doubtWaitMax:
		e.plan(now, d, peer)
	}
	if d.witness == "" || d.hash != head.Hash {
		d.witness, d.hash = peer, head.Hash
	}
	d.at = now
}

// plan makes a repair due: there is evidence against the own copy.
func (e *engine) plan(now int64, d *doubt, peer string) {
	if d.peer == "" {
		e.stats.Mismatches++
		d.peer, d.due = peer, max(d.next, now+e.rng.Int64N(doubtSpread))
	}
}

// scrub looks for records that changed in the own memory.
func (e *engine) scrub(now int64, c *catalog.Catalog) {
	var rotten []record.OriginID
	e.scrubbed, rotten = c.Scrub(e.scrubbed, scrubRecords)
	for _, id := range rotten {
		peer := c.Owner(id)
		if !e.knows(peer) {
			peer = pick(e.rng, e.active)
		}
		if peer == "" || e.doubts[id] == nil && len(e.doubts) >= maxDoubts {
			continue
		}
		if e.doubts[id] == nil {
			e.doubts[id] = &doubt{wait: doubtWait}
		}
		e.doubts[id].at = now
		e.plan(now, e.doubts[id], peer)
	}
	for id, d := range e.doubts {
		if now > max(d.at, d.next)+doubtForget {
			delete(e.doubts, id)
		}
	}
}

// repair ends the repair under way if it is over, and begins the next.
func (e *engine) repair(now int64, c *catalog.Catalog) {
	if r := e.repairs; r.due != 0 && now >= r.due {
		c.Trust(r.origin)
		e.repairs = repairing{}
	}
	for _, id := range e.planned(now) {
		if e.repairs.due != 0 {
			return
		}
		d := e.doubts[id]
		peer := d.peer
		d.peer, d.witness = "", ""
		d.next = now + d.wait
		d.wait = min(2*d.wait, doubtWaitMax)
		if want, ok := c.Doubt(id); ok && e.knows(peer) {
			e.repairs = repairing{origin: id, due: now + repairWithin}
			e.stats.Pulls++
			e.send(peer, catalog.AppendWants([]byte{framePull}, []catalog.Want{want}), urgentControl)
		} else {
			c.Trust(id)
		}
	}
}

// planned returns the origins whose repair is due, in order.
func (e *engine) planned(now int64) []record.OriginID {
	var out []record.OriginID
	for id, d := range e.doubts {
		if d.peer != "" && d.due <= now {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b record.OriginID) int { return slices.Compare(a[:], b[:]) })
	return out
}

// repaired reports whether what came of an origin answers the repair under way,
// and ends it with the last part.
func (e *engine) repaired(c *catalog.Catalog, id record.OriginID) bool {
	if r := e.repairs; r.due == 0 || r.origin != id {
		return false
	}
	if !c.Doubted(id) {
		e.repairs = repairing{}
		e.stats.Repairs++
	}
	return true
}

// forgetDoubts ends every repair: there is nobody to ask.
func (e *engine) forgetDoubts(c *catalog.Catalog) {
	if e.repairs.due != 0 {
		c.Trust(e.repairs.origin)
	}
	e.repairs = repairing{}
	clear(e.doubts)
}

// doubtDue returns when repair has something to do; 0: never.
func (e *engine) doubtDue() int64 {
	due := e.repairs.due
	for _, d := range e.doubts {
		if d.peer != "" && e.repairs.due == 0 {
			due = earlier(due, d.due)
		}
	}
	return due
}
