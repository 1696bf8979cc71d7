package store

import (
	"slices"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Bounds of what the state remembers. They decide what an entry does, so they
// are the same on every server and change only with a new command type.
const (
	// maxTombstones and maxTombstoneAge (in indexes) bound the removals that
	// Since can still tell.
	maxTombstones   = 1 << 16
	maxTombstoneAge = 1 << 20
	// maxKeys bounds the idempotency keys, keyTTL is how long one is kept.
	maxKeys = 100_000
	keyTTL  = 15 * time.Minute
	// maxExpired bounds what one expire command removes.
	maxExpired = 1000
)

// txn turns one state into the next. It applies commands in log order; each
// command checks everything before it changes anything, so a refused one
// leaves no trace. It reads no clock, and no order of a map matters to it.
type txn struct {
	s     state // scalars; trees come from the fields below on commit
	quota quota
	dry   bool // tell what would change, without changing instances

	entries  edit[record.Entry]
	tombs    edit[struct{}]
	tombOf   edit[uint64]
	expiry   edit[struct{}]
	services edit[serviceStat]
	stats    map[string]serviceStat // that differ from services
	keys     edit[usedKey]
	keyAges  edit[struct{}]
	servers  edit[ServerInfo]
	members  edit[Member]

	reg     registration
	decoded []command // by applyEntry, since the one who made the transaction emptied it
}

// quota bounds the live instances and their bytes; 0 is no bound. The leader
// stamps it on each entry, so that all servers apply the same one.
type quota struct{ instances, bytes uint64 }

func (s *state) txn() *txn {
	t := &txn{}
	t.reset(s)
	return t
}

// reset starts anew, with the memory of an earlier transaction.
func (t *txn) reset(s *state) {
	*t = txn{
		s: *s, entries: s.entries.edit(), tombs: s.tombs.edit(), tombOf: s.tombOf.edit(),
		expiry: s.expiry.edit(), services: s.services.edit(), keys: s.keys.edit(), keyAges: s.keyAges.edit(),
		servers: s.servers.edit(), members: s.members.edit(), reg: t.reg,
	}
}

// commit returns the state that the transaction made. The transaction must
// not be used afterwards.
func (t *txn) commit() *state {
	s := t.s
	// The order does not matter: the tree that comes out is the same.
	for name, stat := range t.stats {
		t.services.set(name, stat)
	}
	s.entries = t.entries.commit()
	s.byIndex = s.byIndex.thin(s.entries.len(), func(c change) bool {
		e, ok := s.entries.get(string(c.key))
		return ok && e.Index == c.index
	})
	s.tombs, s.tombOf = t.tombs.commit(), t.tombOf.commit()
	s.expiry, s.services = t.expiry.commit(), t.services.commit()
	s.keys, s.keyAges = t.keys.commit(), t.keyAges.commit()
	s.servers, s.members = t.servers.commit(), t.members.commit()
	return &s
}

// begin starts the entry at index: the position moves, time goes on, and what
// is too old to remember is forgotten.
func (t *txn) begin(index uint64, e *logEntry) {
	t.s.pos.Index = index
	t.s.now = max(t.s.now, e.time)
	t.quota = quota{instances: e.maxInstances, bytes: e.maxBytes}
	for {
		k, ok := t.keyAges.least()
		if !ok {
			break
		}
		ms, key := split(k)
		if int64(ms) >= t.s.now-keyTTL.Milliseconds() {
			break
		}
		t.keyAges.drop(k)
		t.keys.drop(key)
	}
}

// end drops the oldest tombstones above the bounds and raises the floor.
func (t *txn) end() {
	for {
		k, ok := t.tombs.least()
		if !ok {
			return
		}
		index, key := split(k)
		if t.tombs.len() <= maxTombstones && t.s.pos.Index-index <= maxTombstoneAge {
			return
		}
		t.tombs.drop(k)
		t.tombOf.drop(key)
		t.s.floor = max(t.s.floor, index)
	}
}

func (t *txn) get(key record.Key) (record.Entry, bool) { return t.entries.get(string(key)) }

// put sets a live entry. expires is when it expires, wasExpires when the value
// that it replaces would have; 0 is never.
func (t *txn) put(key record.Key, value string, wasExpires, expires int64) {
	if index, ok := t.tombOf.drop(string(key)); ok {
		t.tombs.drop(numbered(index, key))
	}
	e := record.Entry{Key: key, Value: value, Index: t.s.pos.Index}
	old, replaced := t.entries.set(string(key), e)
	if !t.dry && (!replaced || old.Index != e.Index) {
		t.s.byIndex = t.s.byIndex.add(e.Index, key)
	}
	if wasExpires != expires {
		if wasExpires > 0 && replaced {
			t.expiry.drop(numbered(uint64(wasExpires), key))
		}
		if expires > 0 {
			t.expiry.set(numbered(uint64(expires), key), struct{}{})
		}
	}
	if replaced {
		t.tally(old, -1)
	}
	t.tally(e, 1)
	t.count(key, e.Key.Kind() == record.KindInstance && !replaced, 1)
}

// remove replaces a live entry by a tombstone.
func (t *txn) remove(key record.Key, wasExpires int64) {
	if t.forget(key, wasExpires) {
		t.entomb(key)
	}
}

// entomb leaves a tombstone for a key that is not live, in place of an older one.
func (t *txn) entomb(key record.Key) {
	if index, ok := t.tombOf.set(string(key), t.s.pos.Index); ok {
		t.tombs.drop(numbered(index, key))
	}
	t.tombs.set(numbered(t.s.pos.Index, key), struct{}{})
}

// forget takes a live entry out, and reports whether there was one.
func (t *txn) forget(key record.Key, wasExpires int64) bool {
	old, ok := t.entries.drop(string(key))
	if !ok {
		return false
	}
	if wasExpires > 0 {
		t.expiry.drop(numbered(uint64(wasExpires), key))
	}
	t.tally(old, -1)
	t.count(key, key.Kind() == record.KindInstance, -1)
	return true
}

// tally adds (1) or takes away (-1) the hash and the bytes of an entry.
func (t *txn) tally(e record.Entry, sign int) {
	h := catalog.EntryHash(e)
	if sign < 0 {
		h = -h
	}
	t.s.hash += h
	t.s.bytes += int64(sign * (len(e.Key) + len(e.Value)))
}

// count notes that the service of a key has changed, and whether by an
// instance more (1) or less (-1).
func (t *txn) count(key record.Key, instance bool, sign int) {
	service := key.Service()
	if service == "" {
		return
	}
	stat := t.stat(service)
	stat.index = t.s.pos.Index
	if instance {
		t.s.instances += sign
		stat.instances += sign
	}
	if t.stats == nil {
		t.stats = map[string]serviceStat{}
	}
	t.stats[service] = stat
}

// stat returns what is counted of a service.
func (t *txn) stat(service string) serviceStat {
	if stat, ok := t.stats[service]; ok {
		return stat
	}
	stat, _ := t.services.get(service)
	return stat
}

// dropStat forgets what is counted of a service.
func (t *txn) dropStat(service string) {
	delete(t.stats, service)
	t.services.drop(service)
}

// room refuses growth beyond the quota. Shrinking is always allowed.
func (t *txn) room(instances int, bytes int64) error {
	if q := t.quota.instances; q > 0 && instances > 0 && uint64(t.s.instances+instances) > q {
		return refuse(ErrQuota, "instances: %d more would exceed the quota of %d; remove some or raise the quota", instances, q)
	}
	if q := t.quota.bytes; q > 0 && bytes > 0 && uint64(t.s.bytes+bytes) > q {
		return refuse(ErrQuota, "bytes: %d more would exceed the quota of %d; remove some or raise the quota", bytes, q)
	}
	return nil
}

// match checks If-Match against the index of what is to be changed, 0 if it
// does not exist.
func match(m Meta, what string, indexes ...uint64) error {
	if m.IfMatch == nil {
		return nil
	}
	if slices.Contains(indexes, *m.IfMatch) {
		return nil
	}
	return refuse(ErrPrecondition, "%s is at index %d, not at %d; read it again", what, indexes[0], *m.IfMatch)
}
