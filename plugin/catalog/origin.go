package catalog

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

const (
	maxTombs = 4096           // tombstones kept per origin
	tombAge  = 10 * 60 * 1000 // milliseconds a tombstone is kept at least, within maxTombs
	maxSpans = 64             // ranges kept above a watermark
	maxStage = 4              // epochs of one origin staged at once
	partSize = 64 << 10       // bytes of items in one delta that Pull makes
)

// origin is what is known of one agent's gossip.
type origin struct {
	id      record.OriginID
	cur     *history   // what counts; nil until the first base is complete
	staged  []*history // newer epochs whose bases are not complete, oldest first
	learned int64      // when it was first heard of, in milliseconds
	health  health
	listed  string // the node name it is listed under
	skewed  bool   // it sent a time too far ahead
}

// history is one epoch of one origin.
type history struct {
	id                 record.OriginID
	epoch, nonce, base uint64
	watermark          uint64 // (0, watermark] is known
	spans              []span // known above it: sorted, apart from each other
	floor              uint64 // tombstones up to here may be forgotten
	log                []*claim
	opaque             map[record.Key]*claim // headers, unknown kinds, undecodable records
	live, bytes        int
	hash               uint64 // sum over live claims
	shown              bool   // counts in views
	node               record.Node
	reset              *staging
	doubted            bool // its content is asked for anew: a reset to the watermark counts
}

// span is the range (from, to] of sequence numbers.
type span struct{ from, to uint64 }

// staging collects the parts of a reset.
type staging struct {
	to, floor uint64
	spans     []span
	items     []Item
	values    int // bytes of their values
	weight    int // what they count in the catalog
}

// claim is one record of one history.
type claim struct {
	from  *history
	in    *cell // nil if opaque
	seq   uint64
	hlc   HLC
	born  record.Position
	value string // of a tombstone: its id, encoded as in the record
	extra string // the vector clock; the key if opaque
	kind  record.Kind
	dead  bool
}

// cell holds every claim on the instances of one service, staged epochs
// included, sorted by kind and id.
type cell struct {
	name   string
	claims []*claim
}

func (h *history) compare(epoch, nonce uint64) int {
	return cmp.Or(cmp.Compare(h.epoch, epoch), cmp.Compare(h.nonce, nonce))
}

// histories returns what counts and what is staged, oldest first.
func (o *origin) histories() []*history {
	if o.cur == nil {
		return o.staged
	}
	return append([]*history{o.cur}, o.staged...)
}

func (h *history) complete() bool { return h.watermark >= h.base }

// known reports whether a sequence number was taken in before.
func (h *history) known(seq uint64) bool {
	if seq <= h.watermark {
		return true
	}
	return slices.ContainsFunc(h.spans, func(s span) bool { return s.from < seq && seq <= s.to })
}

// covers reports whether all of (from, to] was taken in before.
func (h *history) covers(from, to uint64) bool {
	if to <= h.watermark {
		return true
	}
	from = max(from, h.watermark)
	return slices.ContainsFunc(h.spans, func(s span) bool { return s.from <= from && to <= s.to })
}

// learn adds (from, to] to what is known and raises the watermark over it. It
// reports false, and changes nothing, if that would take too many ranges.
func (h *history) learn(from, to uint64) bool {
	if from <= h.watermark {
		h.watermark = max(h.watermark, to)
	} else {
		spans, ok := addSpan(h.spans, span{from, to})
		if !ok {
			return false
		}
		h.spans = spans
	}
	for len(h.spans) > 0 && h.spans[0].from <= h.watermark {
		h.watermark = max(h.watermark, h.spans[0].to)
		h.spans = slices.Delete(h.spans, 0, 1)
	}
	return true
}

// addSpan merges a range into sorted ones; false if they become too many.
func addSpan(spans []span, n span) ([]span, bool) {
	var out []span
	for _, s := range spans {
		if s.to < n.from || n.to < s.from {
			out = append(out, s)
			continue
		}
		n = span{min(s.from, n.from), max(s.to, n.to)}
	}
	if len(out) >= maxSpans {
		return spans, false
	}
	i, _ := slices.BinarySearchFunc(out, n, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	return slices.Insert(out, i, n), true
}

// id returns the instance id of a claim that is not opaque.
func (c *claim) id() string { return valueID(c.value) }

func (c *claim) key() record.Key {
	switch {
	case c.in == nil:
		return record.Key(c.extra)
	case c.kind == record.KindReport:
		return record.ReportKey(c.in.name, c.id())
	}
	return record.InstanceKey(c.in.name, c.id())
}

func (c *claim) item() Item {
	it := Item{Key: c.key(), Seq: c.seq, HLC: c.hlc, Born: c.born, Deleted: c.dead}
	if !c.dead {
		it.Value = c.value
	}
	if c.in != nil {
		it.Vector = c.extra
	}
	return it
}

// weight is about what the claim takes of memory, in bytes.
func (c *claim) weight() int { return claimWeight + len(c.value) + len(c.extra) }

// claimWeight is a claim, its place in two indexes, and slack.
const claimWeight = 128

// sum is the claim's part of the history's content hash.
func (c *claim) sum() uint64 {
	if c.dead {
		return 0
	}
	var d xxhash.Digest
	d.Reset()
	hashPart(&d, string(c.key()))
	hashPart(&d, c.value)
	return sumWith(&d, c.seq, uint64(c.hlc), c.born.Generation, c.born.Index)
}

// compareVersions is the total order across origins that claim one instance.
func compareVersions(a, b *claim) int {
	return cmp.Or(
		cmp.Compare(a.hlc, b.hlc),
		slices.Compare(a.from.id[:], b.from.id[:]),
		a.from.compare(b.from.epoch, b.from.nonce),
		cmp.Compare(a.seq, b.seq),
	)
}

// position returns where claims of the kind and id start.
func (ce *cell) position(kind record.Kind, id string) int {
	i, _ := slices.BinarySearchFunc(ce.claims, id, func(c *claim, id string) int {
		return cmp.Or(cmp.Compare(c.kind, kind), cmp.Compare(c.id(), id))
	})
	return i
}

// of yields the claims on one id.
func (ce *cell) of(kind record.Kind, id string) []*claim {
	if ce == nil {
		return nil
	}
	i := ce.position(kind, id)
	j := i
	for j < len(ce.claims) && ce.claims[j].kind == kind && ce.claims[j].id() == id {
		j++
	}
	return ce.claims[i:j]
}

// lookup returns the history's claim on a key.
func (c *Catalog) lookup(h *history, k record.Key) *claim {
	if cl := h.opaque[k]; cl != nil {
		return cl
	}
	kind := k.Kind()
	if kind != record.KindInstance && kind != record.KindReport {
		return nil
	}
	name, id, _ := cutKey(k)
	for _, cl := range c.cells[name].of(kind, id) {
		if cl.from == h {
			return cl
		}
	}
	return nil
}

// admit stores an item of a history in place of an older one of its key.
func (c *Catalog) admit(h *history, it *Item, t *touched) {
	if old := c.lookup(h, it.Key); old != nil {
		if old.seq >= it.Seq {
			return
		}
		c.noteLoss(old, it)
		c.evict(old, t)
	}
	cl := &claim{from: h, seq: it.Seq, hlc: it.HLC, born: it.Born, dead: it.Deleted}
	kind := it.Key.Kind()
	name, id, _ := cutKey(it.Key)
	if viewable(kind, name, id, it) {
		ce := c.cells[name]
		if ce == nil {
			ce = &cell{name: strings.Clone(name)}
			c.cells[ce.name] = ce
		}
		cl.in, cl.kind, cl.value, cl.extra = ce, kind, it.Value, it.Vector
		if cl.dead {
			cl.value = string(append([]byte{1<<3 | 2, byte(len(id))}, id...))
		}
		ce.claims = slices.Insert(ce.claims, ce.position(kind, id), cl)
	} else {
		cl.value, cl.extra = it.Value, string(it.Key)
		if h.opaque == nil {
			h.opaque = map[record.Key]*claim{}
		}
		h.opaque[it.Key] = cl
		if it.Key == record.NodeKey {
			h.node, _ = record.DecodeNode(it.Value)
		}
	}
	i, _ := slices.BinarySearchFunc(h.log, cl.seq, func(c *claim, seq uint64) int { return cmp.Compare(c.seq, seq) })
	h.log = slices.Insert(h.log, i, cl)
	h.hash += cl.sum()
	c.bytes += cl.weight()
	if !cl.dead {
		h.live++
		h.bytes += len(cl.value)
	}
	c.touch(cl, t)
	if cl.in != nil && cl.kind == record.KindInstance && !cl.dead && c.contested(cl) {
		c.conflicts++
	}
}

// cutKey splits the path of an instance or report key.
func cutKey(k record.Key) (service, id string, ok bool) { return strings.Cut(string(k[2:]), "/") }

// viewable reports whether an item is an instance or a report that a view can
// use. What is not is kept and passed on as it is.
func viewable(kind record.Kind, name, id string, it *Item) bool {
	if id == "" || len(id) > 127 || record.ValidateService("", name) != nil {
		return false
	}
	switch {
	case kind != record.KindInstance && kind != record.KindReport:
		return false
	case it.Deleted:
		return true
	case kind == record.KindInstance:
		_, ok := checkInstance(name, id, it.Value)
		return ok
	}
	r, err := record.DecodeReport(it.Value)
	return err == nil && r.Service == name && r.ID == id &&
		len(it.Value) >= 2+len(id) && it.Value[0] == 1<<3|2 && int(it.Value[1]) == len(id)
}

// evict removes a claim from its history and from the view.
func (c *Catalog) evict(cl *claim, t *touched) {
	h := cl.from
	c.touch(cl, t)
	c.unlist(cl)
	if cl.in == nil {
		delete(h.opaque, record.Key(cl.extra))
		if record.Key(cl.extra) == record.NodeKey {
			h.node = record.Node{}
		}
	}
	i, _ := slices.BinarySearchFunc(h.log, cl.seq, func(c *claim, seq uint64) int { return cmp.Compare(c.seq, seq) })
	h.log = slices.Delete(h.log, i, i+1)
	h.hash -= cl.sum()
	c.bytes -= cl.weight()
	if !cl.dead {
		h.live--
		h.bytes -= len(cl.value)
	}
}

// unlist takes a claim out of the index by service.
func (c *Catalog) unlist(cl *claim) {
	ce := cl.in
	if ce == nil {
		return
	}
	i := ce.position(cl.kind, cl.id())
	for ce.claims[i] != cl {
		i++
	}
	if ce.claims = slices.Delete(ce.claims, i, i+1); len(ce.claims) == 0 {
		delete(c.cells, ce.name)
	}
}

// touch notes what a change of the claim may change in views.
func (c *Catalog) touch(cl *claim, t *touched) {
	switch {
	case !cl.from.shown:
	case cl.in != nil:
		t.addService(cl.in.name)
	case record.Key(cl.extra) == record.NodeKey:
		t.addHeader(cl.from.id)
	}
}

// collect forgets tombstones that are old, or too many. Rule 2: only those up
// to the watermark, and the floor rises with them.
func (c *Catalog) collect(h *history, now int64, t *touched) {
	var tombs []*claim
	for _, cl := range h.log {
		if cl.dead && (cl.seq <= h.watermark || c.mutation == collectAboveWatermark) {
			tombs = append(tombs, cl)
		}
	}
	over := len(tombs) - maxTombs
	for i, cl := range tombs {
		if i < over || cl.hlc.Millis()+tombAge <= now {
			if c.mutation != collectAboveWatermark {
				h.floor = max(h.floor, cl.seq)
			}
			c.evict(cl, t)
		}
	}
}
