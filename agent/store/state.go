package store

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// state is everything the log has decided up to one index. It is immutable:
// the trees share what did not change with the states before and after it.
type state struct {
	pos     record.Position
	hash    uint64 // sum of catalog.EntryHash over entries
	now     int64  // greatest time a leader stamped, ms since the Unix epoch
	cluster cluster

	entries tree[record.Entry] // live entries by key
	byIndex history            // keys of live entries by index
	tombs   tree[struct{}]     // removed entries by index and key
	tombOf  tree[uint64]       // index of the tombstone of a key
	floor   uint64             // greatest index of a tombstone that was dropped

	expiry   tree[struct{}]    // by expiry time and key
	services tree[serviceStat] // by name
	keys     tree[usedKey]     // idempotency keys by principal and key
	keyAges  tree[struct{}]    // by time and scoped key
	servers  tree[ServerInfo]  // Raft servers by id
	members  tree[Member]      // roster of DNS servers by id

	staged    *staged // a restore that has begun; nil if none has
	instances int     // live instances
	bytes     int64   // keys and values of live entries
}

// cluster is what makes the cluster itself.
type cluster struct {
	id   string // fingerprint of the public key; empty before the first entry
	seed string // of the Ed25519 key that signs state heads; never leaves the servers
}

// serviceStat is what is counted per service.
type serviceStat struct {
	index     uint64 // of the last change of the service or one of its instances
	instances int
}

// usedKey is a remembered idempotency key.
type usedKey struct {
	time   int64 // leader's time of the write
	digest string
	reply  string // encoded outcome
}

// numbered returns the tree key of a number and a name: ordered by the number.
func numbered[T ~string](n uint64, name T) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return string(b[:]) + string(name)
}

// split undoes numbered.
func split(k string) (uint64, string) { return binary.BigEndian.Uint64([]byte(k[:8])), k[8:] }

// State is what this server has applied at one position. It is an immutable
// value: any number of goroutines may read it for as long as they like, and
// getting one costs one atomic load.
type State struct{ s *state }

// Position returns the position of the last command that was applied; the
// index is that of its Raft log entry. It is zero before the cluster is made.
func (st State) Position() record.Position { return st.s.pos }

// Hash returns the content hash: the sum of catalog.EntryHash over Entries.
func (st State) Hash() uint64 { return st.s.hash }

// ClusterID returns the id of the cluster, the fingerprint of its key as 32
// hex digits. It is empty before the first entry is applied.
func (st State) ClusterID() string { return st.s.cluster.id }

// Time returns the greatest time that a leader stamped on an entry, in
// milliseconds since the Unix epoch.
func (st State) Time() int64 { return st.s.now }

// Len returns the number of live entries.
func (st State) Len() int { return st.s.entries.len() }

// Instances returns the number of live instances, which the quota counts.
func (st State) Instances() int { return st.s.instances }

// Bytes returns the bytes of live keys and values, which the quota counts.
func (st State) Bytes() int64 { return st.s.bytes }

// Tombstones returns how many removals Since can tell.
func (st State) Tombstones() int { return st.s.tombs.len() }

// Keys returns how many idempotency keys are remembered.
func (st State) Keys() int { return st.s.keys.len() }

// Floor returns the lowest index that Since takes.
func (st State) Floor() uint64 { return st.s.floor }

// Initialized reports whether the cluster is made.
func (st State) Initialized() bool { return st.s.cluster.id != "" }

// Entries yields the live entries in key order.
func (st State) Entries() iter.Seq[record.Entry] {
	return func(yield func(record.Entry) bool) {
		for _, e := range st.s.entries.all() {
			if !yield(e) {
				return
			}
		}
	}
}

// Since returns what changed after pos: live entries and tombstones with a
// greater index, in index order. It reports false if that is not known any
// more, because pos is of another generation or before a dropped tombstone:
// then only all Entries will do. A position at or after the state's own gives
// nothing and true.
func (st State) Since(pos record.Position) ([]record.Entry, bool) {
	if pos.Generation != st.s.pos.Generation || pos.Index < st.s.floor {
		return nil, false
	}
	if pos.Index >= st.s.pos.Index {
		return nil, true
	}
	var out, dead []record.Entry
	for k := range st.s.tombs.from(numbered(pos.Index+1, "")) {
		at, key := split(k)
		dead = append(dead, record.Entry{Key: record.Key(key), Index: at, Deleted: true})
	}
	var at uint64 // index of the last change
	from := 0     // where its entries begin
	// A key that one log entry set more than once is there as often.
	tidy := func() {
		same := out[from:]
		slices.SortFunc(same, func(a, b record.Entry) int { return cmp.Compare(a.Key, b.Key) })
		out = out[:from+len(slices.CompactFunc(same, func(a, b record.Entry) bool { return a.Key == b.Key }))]
	}
	for c := range st.s.byIndex.after(pos.Index) {
		if c.index != at {
			tidy()
			for len(dead) > 0 && dead[0].Index < c.index {
				out, dead = append(out, dead[0]), dead[1:]
			}
			at, from = c.index, len(out)
		}
		if e, ok := st.Entry(c.key); ok && e.Index == at {
			out = append(out, e)
		}
	}
	tidy()
	return append(out, dead...), true
}

// Entry returns the live entry of a key.
func (st State) Entry(key record.Key) (record.Entry, bool) { return st.s.entries.get(string(key)) }

// Service returns the committed record of a service and the index of its last
// change, instances included.
func (st State) Service(name string) (s record.Service, index uint64, ok bool) {
	e, ok := st.Entry(record.ServiceKey(name))
	if !ok {
		return s, 0, false
	}
	s, err := record.DecodeService(e.Value)
	stat, _ := st.s.services.get(name)
	return s, stat.index, err == nil
}

// ServiceInfo is one line of a list of services.
type ServiceInfo struct {
	record.Service
	Index     uint64 // of the last change, instances included
	Instances int
}

// Services returns at most limit services whose name is greater than after, in
// order of name.
func (st State) Services(after string, limit int) []ServiceInfo {
	var out []ServiceInfo
	for _, e := range st.s.entries.from(string(record.ServiceKey(after)) + "\x00") {
		if len(out) >= limit || e.Key.Kind() != record.KindService {
			break
		}
		s, err := record.DecodeService(e.Value)
		if err != nil {
			continue
		}
		stat, _ := st.s.services.get(s.Name)
		out = append(out, ServiceInfo{Service: s, Index: stat.index, Instances: stat.instances})
	}
	return out
}

// Instance returns a committed instance by its canonical id, and the index of
// its last change.
func (st State) Instance(service, id string) (in record.Instance, index uint64, ok bool) {
	e, ok := st.Entry(record.InstanceKey(service, id))
	if !ok {
		return in, 0, false
	}
	in, err := record.DecodeInstance(e.Value)
	return in, e.Index, err == nil
}

// InstancesOf yields the committed instances of a service in order of id, each
// with the index of its last change.
func (st State) InstancesOf(service string) iter.Seq2[record.Instance, uint64] {
	return func(yield func(record.Instance, uint64) bool) {
		for e := range st.prefix(record.InstanceKey(service, "")) {
			if in, err := record.DecodeInstance(e.Value); err == nil && !yield(in, e.Index) {
				return
			}
		}
	}
}

// Overlay returns a committed overlay and the index of its last change.
func (st State) Overlay(id string) (o record.Overlay, index uint64, ok bool) {
	e, ok := st.Entry(record.OverlayKey(id))
	if !ok {
		return o, 0, false
	}
	o, err := record.DecodeOverlay(e.Value)
	return o, e.Index, err == nil
}

// Overlays yields the committed overlays in order of id, each with the index
// of its last change.
func (st State) Overlays() iter.Seq2[record.Overlay, uint64] {
	return func(yield func(record.Overlay, uint64) bool) {
		for e := range st.prefix(record.OverlayKey("")) {
			if o, err := record.DecodeOverlay(e.Value); err == nil && !yield(o, e.Index) {
				return
			}
		}
	}
}

func (st State) prefix(p record.Key) iter.Seq[record.Entry] {
	return func(yield func(record.Entry) bool) {
		for _, e := range st.s.entries.under(string(p)) {
			if !yield(e) {
				return
			}
		}
	}
}
