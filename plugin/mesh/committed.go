package mesh

import (
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// position returns what committed state this member can pass on: only what it
// has a seal for.
func (e *engine) position(c *catalog.Catalog) record.Position {
	if e.seal.Position != c.Position() {
		return record.Position{}
	}
	return e.seal.Position
}

// setCluster begins to take committed state of a cluster, or ends to.
func (e *engine) setCluster(now int64, id string) {
	if e.cluster == id {
		return
	}
	e.cluster, e.seal, e.asm, e.fetch = id, catalog.Seal{}, assembly{}, fetching{}
	if len(e.peers) > 0 {
		e.nextDigest = now // who has it says so
	}
}

// commit passes on committed state that the own catalog holds.
func (e *engine) commit(b *catalog.Batch) {
	if e.cluster == "" || CheckSeal(e.cluster, &b.Seal) != nil {
		return
	}
	if e.seal.Position.Before(b.Seal.Position) {
		e.seal = b.Seal
	}
	if b.Size() <= maxFrame/2 {
		e.spread(b)
	}
}

func (e *engine) spread(b *catalog.Batch) {
	if e.passive {
		return
	}
	body := b.Append([]byte{frameBatch})
	for _, id := range e.sample(fanout) {
		e.send(id, body, urgentEager)
	}
}

// onBatch takes in committed state under the cluster's seal.
func (e *engine) onBatch(now int64, c *catalog.Catalog, from string, body []byte) error {
	if e.cluster == "" {
		return nil
	}
	b, err := catalog.DecodeBatch(body)
	if err != nil {
		return err
	}
	if b.Full {
		return e.onPart(now, c, from, &b)
	}
	ch, done, err := applyBatch(c, e.cluster, &b)
	if err != nil {
		return err
	}
	e.join(ch)
	if done {
		e.seal = b.Seal
		e.fetch = fetching{}
		e.spread(&b)
		return nil
	}
	if c.Position().Before(b.Seal.Position) && CheckSeal(e.cluster, &b.Seal) == nil {
		e.behind(now, c, from, b.Seal.Position)
	}
	if b.Seal.Position == c.Position() && b.Seal.Hash == c.Hash() && e.seal.Position != b.Seal.Position && CheckSeal(e.cluster, &b.Seal) == nil {
		e.seal = b.Seal // the feed was faster; now this member can pass it on
	}
	return nil
}

// onPart takes in a part of a full state and asks for the next.
func (e *engine) onPart(now int64, c *catalog.Catalog, from string, b *catalog.Batch) error {
	if !e.passive && (from != e.fetch.peer || e.fetch.due == 0) {
		return nil // not asked for
	}
	ch, done, err := e.asm.add(c, e.cluster, b)
	if err != nil {
		e.fetch = fetching{}
		return err
	}
	e.join(ch)
	switch {
	case done:
		e.seal = b.Seal
		e.fetch = fetching{}
	case e.asm.stage != nil && !e.passive:
		e.fetch.due = now + fetchRetry
		if e.asm.next%fetchAhead == 0 {
			f := fetch{at: c.Position(), part: e.asm.next}
			e.send(from, f.append(nil), urgentControl)
		}
	}
	return nil
}

// behind asks a peer for committed state, if it says that it has more.
func (e *engine) behind(now int64, c *catalog.Catalog, peer string, at record.Position) {
	if e.passive || e.cluster == "" || !c.Position().Before(at) || e.fetch.due != 0 {
		return
	}
	e.fetch = fetching{at: at}
	e.fetchFrom(now, c, peer)
}

// fetchFrom asks, or asks somebody else. What a peer says it has is not proven
// before it comes, so it is not asked for without end.
func (e *engine) fetchFrom(now int64, c *catalog.Catalog, peer string) {
	e.asm = assembly{}
	if peer == "" || !c.Position().Before(e.fetch.at) || e.fetch.tries >= fetchTries {
		e.fetch = fetching{}
		return
	}
	e.fetch.peer, e.fetch.due = peer, now+fetchRetry
	e.fetch.tries++
	f := fetch{at: c.Position()}
	e.send(peer, f.append(nil), urgentControl)
}

// onFetch answers a request for committed state. A full state goes out a few
// parts at a time, so that a queue need not hold all of it.
func (e *engine) onFetch(now int64, c *catalog.Catalog, from string, body []byte) error {
	f, err := decodeFetch(body)
	if err != nil {
		return err
	}
	for id, s := range e.serving {
		if s.since+5*fetchRetry < now {
			delete(e.serving, id)
		}
	}
	s := e.serving[from]
	if f.part == 0 {
		if len(e.serving) >= maxServing && s == nil {
			e.drop("busy")
			return nil
		}
		s = &served{parts: c.Batches(f.at, e.seal)}
	}
	if s == nil {
		return nil
	}
	for i := f.part; i < uint64(len(s.parts)) && i < f.part+fetchAhead; i++ {
		e.send(from, s.parts[i].Append([]byte{frameBatch}), urgentData)
	}
	if f.part+fetchAhead < uint64(len(s.parts)) {
		s.since = now
		e.serving[from] = s
	} else {
		delete(e.serving, from)
	}
	return nil
}
