package mesh

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// check plans to pull an origin if a peer's head shows something missing.
func (e *engine) check(now int64, c *catalog.Catalog, peer string, head catalog.Head, patience int64) {
	if e.passive {
		return
	}
	if e.onClone != nil && c.Foreign(head) {
		e.onClone(head.Origin)
		return
	}
	if _, missing := c.Missing(head); !missing {
		if p := e.pulls[head.Origin]; p != nil && p.head.Compare(head) <= 0 {
			delete(e.pulls, head.Origin)
		}
		return
	}
	p := e.pulls[head.Origin]
	if p == nil && len(e.pulls) >= maxPulls {
		e.drop("pulls")
		return
	}
	if p == nil {
		e.pulls[head.Origin] = &pull{head: head, peer: peer, due: now + patience}
		return
	}
	if p.head.Compare(head) < 0 {
		p.head = head
	}
	if !p.sent && now+patience < p.due {
		p.peer, p.due = peer, now+patience
	}
}

// pullDue asks for what is due, in one frame per peer.
func (e *engine) pullDue(now int64, c *catalog.Catalog) {
	var wants map[string][]catalog.Want
	for _, id := range e.dueOrigins(now) {
		p := e.pulls[id]
		w, missing := c.Missing(p.head)
		if !missing {
			delete(e.pulls, id)
			continue
		}
		if p.sent || !e.knows(p.peer) {
			p.peer = pick(e.rng, e.active) // the one that was asked does not answer
		}
		if p.peer == "" || p.vain >= vainPulls {
			delete(e.pulls, id) // a digest finds it again, if it exists
			continue
		}
		if len(wants[p.peer]) >= maxHeads {
			p.due = now + pullRetry
			continue
		}
		if wants == nil {
			wants = map[string][]catalog.Want{}
		}
		wants[p.peer] = append(wants[p.peer], w)
		p.sent, p.came, p.due = true, false, now+pullRetry
		p.vain++
	}
	for _, peer := range slices.Sorted(maps.Keys(wants)) {
		e.stats.Pulls++
		e.send(peer, catalog.AppendWants([]byte{framePull}, wants[peer]), urgentControl)
	}
}

func (e *engine) dueOrigins(now int64) []record.OriginID {
	var out []record.OriginID
	for id, p := range e.pulls {
		if p.due <= now {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b record.OriginID) int { return slices.Compare(a[:], b[:]) })
	return out
}

func (e *engine) knows(peer string) bool {
	_, found := slices.BinarySearch(e.peers, peer)
	return found
}

// answered goes on with what the peer that just answered has left. If it broke
// off, everything it was asked for is still open; but only an answer that held
// something new is worth the next question at once.
func (e *engine) answered(now int64, c *catalog.Catalog, peer string, part bool) {
	var open []*pull
	came := false
	for id, p := range e.pulls {
		if p.peer != peer || !p.sent {
			continue
		}
		came = came || p.came
		if _, missing := c.Missing(p.head); !missing {
			delete(e.pulls, id)
			continue
		}
		open = append(open, p)
	}
	for _, p := range open {
		if p.came || came && part {
			p.sent, p.due, p.vain = false, now, 0
		}
	}
	e.pullDue(now, c)
}

// onPull answers requests, up to a bound for all of them; the reader asks again
// for the rest.
func (e *engine) onPull(c *catalog.Catalog, from string, body []byte) error {
	wants, err := catalog.DecodeWants(body)
	if err != nil {
		return err
	}
	if len(wants) > maxHeads {
		return errFrame
	}
	var batch []*catalog.Delta
	size, total, end := 0, 0, endAll
	for i, w := range wants {
		for _, d := range c.Pull(w, pullBytes) {
			if size > 0 && size+d.Size() > pushBytes {
				e.send(from, appendDeltas(nil, frameData, endNot, batch), urgentData)
				batch, size = nil, 0
			}
			batch = append(batch, &d)
			size += d.Size()
			total += d.Size()
		}
		if total >= pullBytes {
			if i < len(wants)-1 {
				end = endPart
			}
			break
		}
	}
	e.send(from, appendDeltas(nil, frameData, end, batch), urgentData)
	return nil
}

// sendHave tells one peer which heads moved lately.
func (e *engine) sendHave(now int64, c *catalog.Catalog, to string, reply bool) {
	h := have{reply: reply, at: e.position(c), heads: make([]catalog.Head, 0, len(e.moved))}
	for id, at := range e.moved {
		if at+haveWindow < now {
			delete(e.moved, id)
			continue
		}
		if head, ok := c.Head(id); ok {
			h.heads = append(h.heads, head)
		}
	}
	if len(h.heads) == 0 && h.at.IsZero() {
		return
	}
	slices.SortFunc(h.heads, func(a, b catalog.Head) int { return slices.Compare(a.Origin[:], b.Origin[:]) })
	if len(h.heads) > maxHeads {
		h.heads = h.heads[:maxHeads]
		e.nextDigest = earlier(e.nextDigest, now) // too much for a list: compare everything
	}
	e.send(to, h.append(nil, frameHave), urgentControl)
}

func (e *engine) onHave(now int64, c *catalog.Catalog, from string, body []byte) error {
	h, err := decodeHave(body)
	if err != nil {
		return err
	}
	if len(h.heads) > maxHeads {
		return errFrame
	}
	for _, head := range h.heads {
		e.note(from, head)
		e.check(now, c, from, head, 0)
		e.compareContent(now, c, from, head)
	}
	e.behind(now, c, from, h.at)
	e.pullDue(now, c)
	if !h.reply {
		e.sendHave(now, c, from, true)
	}
	return nil
}

// compare sends a digest to members that just came, or to a random one.
func (e *engine) compare(now int64, c *catalog.Catalog) {
	e.nextDigest = now + e.about(digestEvery)
	to := e.greet
	e.greet = nil
	if len(to) == 0 {
		to = []string{pick(e.rng, e.peers)}
	}
	d := digest{at: e.position(c)}
	for _, h := range c.Heads() {
		d.sums[bucketOf(h.Origin)] += headSum(h)
	}
	body := d.append(nil)
	for _, id := range to {
		e.send(id, body, urgentControl)
	}
}

func bucketOf(id record.OriginID) int { return int(xxhash.Sum64(id[:]) % buckets) }

func headSum(h catalog.Head) uint64 {
	b := make([]byte, 0, 48)
	b = append(b, h.Origin[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.Epoch)
	b = binary.LittleEndian.AppendUint64(b, h.Nonce)
	b = binary.LittleEndian.AppendUint64(b, h.Watermark)
	b = binary.LittleEndian.AppendUint64(b, h.Hash)
	return xxhash.Sum64(b)
}

// onDigest answers with the heads of the buckets that differ.
func (e *engine) onDigest(c *catalog.Catalog, from string, body []byte) error {
	d, err := decodeDigest(body)
	if err != nil {
		return err
	}
	heads := c.Heads()
	var sums [buckets]uint64
	for _, h := range heads {
		sums[bucketOf(h.Origin)] += headSum(h)
	}
	h := have{at: e.position(c), mask: make([]byte, buckets/8)}
	differ := d.at != h.at
	for i := range sums {
		if sums[i] != d.sums[i] {
			h.mask[i/8] |= 1 << (i % 8)
			differ = true
		}
	}
	if !differ {
		return nil
	}
	h.heads = inMask(heads, h.mask)
	e.send(from, h.append(nil, frameHeads), urgentControl)
	return nil
}

func inMask(heads []catalog.Head, mask []byte) []catalog.Head {
	return slices.DeleteFunc(heads, func(h catalog.Head) bool {
		i := bucketOf(h.Origin)
		return i/8 >= len(mask) || mask[i/8]&(1<<(i%8)) == 0
	})
}

// onHeads pulls what the other has more of, half of it from somebody else if
// it is much, and answers with what it has less of.
func (e *engine) onHeads(now int64, c *catalog.Catalog, from string, body []byte) error {
	h, err := decodeHave(body)
	if err != nil {
		return err
	}
	theirs := make(map[record.OriginID]catalog.Head, len(h.heads))
	for i, head := range h.heads {
		theirs[head.Origin] = head
		peer := from
		if i%2 == 1 && len(h.heads) > 16 {
			peer = cmp.Or(pick(e.rng, e.active), from)
		}
		e.note(from, head)
		e.check(now, c, peer, head, 0)
		e.compareContent(now, c, from, head)
	}
	e.behind(now, c, from, h.at)
	e.pullDue(now, c)
	if h.reply {
		return nil
	}
	back := have{reply: true, at: e.position(c), mask: h.mask}
	for _, mine := range inMask(c.Heads(), h.mask) {
		if their, ok := theirs[mine.Origin]; !ok || their.Compare(mine) < 0 {
			back.heads = append(back.heads, mine)
		}
	}
	if len(back.heads) > 0 || h.at.Before(back.at) {
		e.send(from, back.append(nil, frameHeads), urgentControl)
	}
	return nil
}

// await begins to find out who holds a head; awaited counts them.
func (e *engine) await(now int64, head catalog.Head) {
	if e.awaiting++; e.awaiting == 1 || head.Compare(e.awaited) > 0 || head.Origin != e.awaited.Origin {
		if head.Origin != e.awaited.Origin {
			clear(e.asked)
		}
		e.awaited = head
	}
	e.nextAsk = now + askEvery
}

func (e *engine) awaitEnd() {
	if e.awaiting--; e.awaiting == 0 {
		e.nextAsk = 0
		clear(e.asked)
	}
}

// holders counts the members known to hold a head.
func (e *engine) holders(head catalog.Head) int {
	n := 0
	for _, h := range e.asked {
		if h.Origin == head.Origin && h.Compare(head) >= 0 {
			n++
		}
	}
	return n
}

// note remembers what a member holds of the awaited origin.
func (e *engine) note(from string, head catalog.Head) {
	if e.awaiting > 0 && head.Origin == e.awaited.Origin && e.knows(from) {
		e.asked[from] = head
	}
}

// ask asks a few of those that were not heard from.
func (e *engine) ask(now int64) {
	e.nextAsk = now + askEvery
	body := catalog.AppendHeads([]byte{frameAsk}, []catalog.Head{e.awaited})
	n := 0
	for _, i := range e.rng.Perm(len(e.peers)) {
		id := e.peers[i]
		if h, ok := e.asked[id]; ok && h.Compare(e.awaited) >= 0 {
			continue
		}
		e.send(id, body, urgentControl)
		if n++; n == 2*fanout {
			return
		}
	}
}

func (e *engine) onAsk(c *catalog.Catalog, from string, body []byte) error {
	heads, err := catalog.DecodeHeads(body)
	if err != nil || len(heads) != 1 {
		return errFrame
	}
	h := have{reply: true, at: e.position(c)}
	if mine, ok := c.Head(heads[0].Origin); ok {
		h.heads = append(h.heads, mine)
	}
	e.send(from, h.append(nil, frameHave), urgentControl)
	return nil
}
