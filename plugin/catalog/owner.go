package catalog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

var (
	// ErrUnregistered is returned for a change to a record that the origin does
	// not hold.
	ErrUnregistered = errors.New("not registered here")
	// ErrCritical is returned for the ephemeral registration of an instance of
	// a critical service.
	ErrCritical = errors.New("service is critical")
)

// ClaimedError is returned by Register for an instance that a living origin
// holds already.
type ClaimedError struct {
	Service, ID string
	Owner       record.OriginID
	Node        string // the owner's node name, if known
}

// Error names the instance and its owner.
func (e *ClaimedError) Error() string {
	owner := e.Node
	if owner == "" {
		owner = e.Owner.String()
	}
	return fmt.Sprintf("instance %s of %s is registered by %s", e.ID, e.Service, owner)
}

// conflictGrace is how long, in milliseconds, a claim may lose against another
// origin's before its owner withdraws it.
const conflictGrace = 10 * 1000

// Owner writes one origin, an agent's own. Its calls, like those of its
// catalog, are serialised by the caller.
//
// A change takes two steps, so that the caller can make it durable in between:
// a drafting method (Register, Update, Withdraw, Report, Describe) returns the
// item to store, and Commit publishes it. What was stored is given back to Own
// after a restart.
type Owner struct {
	c     *Catalog
	o     *origin
	clock Clock
	lost  map[record.Key]int64 // since when a claim loses, in milliseconds
}

// Own makes the catalog's owner the writer of an origin, in a new epoch that
// holds the given items and nothing else. Their sequence numbers are assigned
// anew; keys, values, times, births and vectors are kept. epoch must be greater
// than in every earlier process and nonce random. The items come from the
// caller's own store, so they are not held to the catalog's limits.
func (c *Catalog) Own(now int64, id record.OriginID, epoch, nonce uint64, items []Item) (*Owner, Changes, error) {
	d := Delta{Origin: id, Epoch: epoch, Nonce: nonce, To: max(1, uint64(len(items)))}
	d.Base = d.To
	ow := &Owner{c: c, lost: map[record.Key]int64{}}
	for i, it := range items {
		it.Seq = uint64(i) + 1
		ow.clock.Restore(it.HLC)
		d.Items = append(d.Items, it)
	}
	if err := d.check(); err != nil {
		return nil, Changes{}, err
	}
	if epoch <= c.slot.retired[id] {
		return nil, Changes{}, fmt.Errorf("catalog: own %v in epoch %d: %w", id, epoch, ErrReaped)
	}
	t := newTouched()
	h := &history{id: id, epoch: epoch, nonce: nonce, base: d.Base}
	o := c.origins[id]
	if o == nil {
		o = &origin{id: id, learned: now}
		c.origins[id] = o
	}
	for _, old := range o.staged {
		c.discard(old, t)
	}
	o.staged, c.own, ow.o = []*history{h}, id, o
	for i := range d.Items {
		c.admit(h, &d.Items[i], t)
	}
	h.learn(0, d.Base)
	c.promote(o, 0, t)
	c.settle(now, t)
	return ow, t.changes(), nil
}

// Foreign reports whether a head shows something of the own origin that this
// process never wrote: somebody else has its identity.
func (c *Catalog) Foreign(h Head) bool {
	o := c.origins[c.own]
	return h.Origin == c.own && o != nil && o.cur != nil && h.Compare(o.head()) > 0
}

// Conflicts returns the keys of the registrations that are hidden because the
// committed class of their service is another. They are kept: they show again
// when the service is critical no more.
func (ow *Owner) Conflicts() []record.Key {
	var out []record.Key
	for _, cl := range ow.o.cur.log {
		if cl.in != nil && !cl.dead && cl.kind == record.KindInstance && ow.c.slot.services[cl.in.name].critical() {
			out = append(out, cl.key())
		}
	}
	slices.Sort(out)
	return out
}

// ID returns the origin.
func (ow *Owner) ID() record.OriginID { return ow.o.id }

// Reaped reports whether a committed fence retired the origin, as happens to
// one that was away for long: nothing that it writes counts any more. The other
// methods must not be called then.
func (ow *Owner) Reaped() bool { return ow.o.cur == nil }

// Head returns how far the origin was written.
func (ow *Owner) Head() Head { return ow.o.head() }

// Register drafts an explicit registration of an instance, new or changed. It
// reports false for changed if the origin holds exactly this already and
// nothing hides it; there is nothing to store or commit then. The instance must
// be normalized and valid.
//
// Errors: *ClaimedError if another living origin holds the instance,
// ErrCritical if the service is critical, ErrLimit.
func (ow *Owner) Register(now int64, in *record.Instance) (it Item, changed bool, err error) {
	c, sv := ow.c, ow.c.slot.services[in.Service]
	if sv.critical() {
		return Item{}, false, fmt.Errorf("catalog: register %s/%s: %w", in.Service, in.ID, ErrCritical)
	}
	key := record.InstanceKey(in.Service, in.ID)
	it = Item{Key: key, Value: string(in.Append(nil)), Born: c.slot.pos}
	old := c.lookup(ow.o.cur, key)
	if old != nil && !old.dead && old.value == it.Value && c.hidden(sv, old) == RuleAnswered {
		return old.item(), false, nil
	}
	for _, cl := range c.cells[in.Service].of(record.KindInstance, in.ID) {
		if cl.from == ow.o.cur || cl.dead || !cl.from.shown || c.hidden(sv, cl) != RuleAnswered {
			continue
		}
		if other := c.origins[cl.from.id]; other.health.state != Dead {
			return Item{}, false, &ClaimedError{Service: in.Service, ID: in.ID, Owner: other.id, Node: other.cur.node.Name}
		}
	}
	if err := c.fits(ow.o.cur, []*Item{&it}); err != nil {
		return Item{}, false, err
	}
	return ow.stamp(now, it), true, nil
}

// Update drafts a change of a registered instance that is not a new
// registration: its status, weight or heartbeat. The birth of the registration
// stays, so that a fence that hides it goes on hiding it.
func (ow *Owner) Update(now int64, in *record.Instance) (it Item, changed bool, err error) {
	key := record.InstanceKey(in.Service, in.ID)
	old := ow.c.lookup(ow.o.cur, key)
	if old == nil || old.dead {
		return Item{}, false, fmt.Errorf("catalog: update %s/%s: %w", in.Service, in.ID, ErrUnregistered)
	}
	it = Item{Key: key, Value: string(in.Append(nil)), Born: old.born}
	if old.value == it.Value {
		return old.item(), false, nil
	}
	return ow.stamp(now, it), true, nil
}

// Instance returns the origin's own live record of an instance.
func (ow *Owner) Instance(service, id string) (Item, bool) {
	cl := ow.c.lookup(ow.o.cur, record.InstanceKey(service, id))
	if cl == nil || cl.dead {
		return Item{}, false
	}
	return cl.item(), true
}

// Withdraw drafts the removal of a record. It returns ErrUnregistered if the
// origin does not hold it.
func (ow *Owner) Withdraw(now int64, key record.Key) (Item, error) {
	old := ow.c.lookup(ow.o.cur, key)
	if old == nil || old.dead {
		return Item{}, fmt.Errorf("catalog: withdraw %s: %w", key, ErrUnregistered)
	}
	return ow.stamp(now, Item{Key: key, Born: old.born, Deleted: true}), nil
}

// Report drafts the status of a committed instance on this origin's node.
func (ow *Owner) Report(now int64, r *record.Report) (it Item, changed bool) {
	it = Item{Key: record.ReportKey(r.Service, r.ID), Value: string(r.Append(nil)), Born: ow.c.slot.pos}
	return ow.unlessSame(now, it)
}

// Describe drafts the origin's header.
func (ow *Owner) Describe(now int64, n *record.Node) (it Item, changed bool) {
	return ow.unlessSame(now, Item{Key: record.NodeKey, Value: string(n.Append(nil)), Born: ow.c.slot.pos})
}

func (ow *Owner) unlessSame(now int64, it Item) (Item, bool) {
	if old := ow.c.lookup(ow.o.cur, it.Key); old != nil && !old.dead && old.value == it.Value {
		return old.item(), false
	}
	return ow.stamp(now, it), true
}

// stamp gives an item its time, after every version of the record that is
// known here, and the vector clock that says so. A claim with a time far ahead
// is outbid on this record alone; the clock does not follow it.
func (ow *Owner) stamp(now int64, it Item) Item {
	it.HLC = ow.clock.Next(now)
	cl := ow.c.lookup(ow.o.cur, it.Key)
	if cl != nil {
		it.HLC = max(it.HLC, cl.hlc+1)
	}
	if it.Key.Kind() != record.KindInstance {
		return it
	}
	var v vector
	if cl != nil && cl.in != nil {
		v, _ = decodeVector(cl.extra)
	}
	_, id, _ := cutKey(it.Key)
	for _, other := range ow.c.cells[it.Key.Service()].of(record.KindInstance, id) {
		if other.from.id == ow.o.id || !other.from.shown {
			continue
		}
		ow.clock.Observe(now, other.hlc)
		it.HLC = max(it.HLC, other.hlc+1)
		seen, _ := decodeVector(other.extra)
		for _, t := range append(seen, tick{other.from.id, other.hlc}) {
			if t.origin != ow.o.id {
				v = v.with(t)
			}
		}
	}
	it.Vector = v.encode()
	return it
}

// Commit publishes drafted items, in order, and returns the delta to hand to
// the mesh. Items of one key must be committed in the order of their drafts.
func (ow *Owner) Commit(now int64, items ...Item) (Delta, Changes) {
	h, t := ow.o.cur, newTouched()
	ow.c.now = max(ow.c.now, now)
	d := Delta{Origin: h.id, Epoch: h.epoch, Nonce: h.nonce, Base: h.base, From: h.watermark}
	for i := range items {
		items[i].Seq = h.watermark + 1
		ow.c.admit(h, &items[i], t)
		h.learn(h.watermark, h.watermark+1)
	}
	d.To = h.watermark
	last := map[record.Key]uint64{}
	for i := range items {
		last[items[i].Key] = items[i].Seq
	}
	for _, it := range items {
		if last[it.Key] == it.Seq {
			d.Items = append(d.Items, it)
		}
	}
	ow.c.settle(now, t)
	return d, t.changes()
}

// Obligations returns the keys of registrations that the owner has to
// withdraw: those a committed fence hides, and those that lost against another
// origin's claim for 10 seconds. The caller drafts and commits the withdrawals.
func (ow *Owner) Obligations(now int64) []record.Key {
	var out []record.Key
	for _, cl := range ow.o.cur.log {
		if cl.in == nil || cl.dead || cl.kind != record.KindInstance {
			continue
		}
		sv, key := ow.c.slot.services[cl.in.name], cl.key()
		switch {
		case ow.c.hidden(sv, cl) == RuleFenced:
			out = append(out, key)
		case !sv.critical() && ow.loses(sv, cl):
			since, ok := ow.lost[key]
			if !ok {
				ow.lost[key] = now
			} else if now >= since+conflictGrace {
				out = append(out, key)
			}
		default:
			delete(ow.lost, key)
		}
	}
	for key := range ow.lost {
		if cl := ow.c.lookup(ow.o.cur, key); cl == nil || cl.dead {
			delete(ow.lost, key)
		}
	}
	slices.Sort(out)
	return out
}

func (ow *Owner) loses(sv *service, cl *claim) bool {
	return slices.ContainsFunc(cl.in.of(cl.kind, cl.id()), func(other *claim) bool {
		return other.from != cl.from && !other.dead && other.from.shown &&
			ow.c.hidden(sv, other) == RuleAnswered && ow.c.beats(other, cl)
	})
}
