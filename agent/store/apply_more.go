package store

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"github.com/fluid-sd/fluid/plugin/record"
)

func addrOfHex(s string) (string, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		return "", false
	}
	a, _ := netip.AddrFromSlice(b)
	return a.String(), true
}

// initCluster makes the cluster from the seed of its key. Only the first such
// command counts: a leader that lost its leadership may have proposed one too.
func (t *txn) initCluster(c *command) ([]item, error) {
	if t.s.cluster.id != "" {
		return nil, refuse(ErrConflict, "cluster %s is made already", t.s.cluster.id)
	}
	if len(c.values) != 1 || len(c.values[0]) != ed25519.SeedSize {
		return nil, refuse(ErrInvalid, "cluster key: seed of a length other than %d", ed25519.SeedSize)
	}
	t.s.cluster = makeCluster(c.values[0])
	t.s.pos.Generation = 1
	return []item{{created: true, changed: true, index: t.s.pos.Index}}, nil
}

// makeCluster derives the cluster's id from the seed of its key.
func makeCluster(seed string) cluster {
	pub := ed25519.NewKeyFromSeed([]byte(seed)).Public().(ed25519.PublicKey)
	sum := sha256.Sum256(pub)
	return cluster{id: hex.EncodeToString(sum[:16]), seed: seed}
}

func (t *txn) deregisterInstance(c *command) ([]item, error) {
	key := record.InstanceKey(c.target, c.id)
	e, ok := t.get(key)
	if err := match(c.meta, "instance "+c.id+" of "+c.target, e.Index); err != nil {
		return nil, err
	}
	if !ok {
		return nil, refuse(ErrNotFound, "instance %s of service %s is not registered", c.id, c.target)
	}
	t.remove(key, expiresOf(e))
	return t.changed(), nil
}

// deregister removes a service with all its instances.
func (t *txn) deregister(c *command) ([]item, error) {
	key := record.ServiceKey(c.target)
	e, ok := t.get(key)
	stat := t.stat(c.target)
	if err := match(c.meta, "service "+c.target, stat.index, e.Index); err != nil {
		return nil, err
	}
	if !ok {
		return nil, refuse(ErrNotFound, "service %s is not registered", c.target)
	}
	if s, err := record.DecodeService(e.Value); err == nil && s.Class != record.ClassCritical {
		return nil, refuse(ErrConflict, "service: %q is %s; deregister its instances where they were registered", c.target, s.Class)
	}
	for _, e := range t.prefix(record.InstanceKey(c.target, "")) {
		t.remove(e.Key, expiresOf(e))
	}
	t.remove(key, 0)
	t.dropStat(c.target)
	return t.changed(), nil
}

func (t *txn) putService(c *command) ([]item, error) {
	if len(c.values) != 1 {
		return nil, refuse(ErrInvalid, "service: %d records", len(c.values))
	}
	s, err := record.DecodeService(c.values[0])
	if err != nil {
		return nil, refuse(ErrInvalid, "service: %v", err)
	}
	key := record.ServiceKey(s.Name)
	old, ok := t.get(key)
	stat := t.stat(s.Name)
	if err := match(c.meta, "service "+s.Name, old.Index, stat.index); err != nil {
		return nil, err
	}
	if s.Class != record.ClassCritical && stat.instances > 0 {
		return nil, refuse(ErrConflict, "class: service %s has %d committed instances; deregister them before it becomes %s", s.Name, stat.instances, s.Class)
	}
	if ok && old.Value == c.values[0] {
		return []item{{index: old.Index}}, nil
	}
	if err := t.room(0, t.growth(key, old, c.values[0])); err != nil {
		return nil, err
	}
	t.put(key, c.values[0], 0, 0)
	return []item{{created: !ok, changed: true, index: t.s.pos.Index}}, nil
}

func (t *txn) putOverlay(c *command) ([]item, error) {
	if len(c.values) != 1 {
		return nil, refuse(ErrInvalid, "overlay: %d records", len(c.values))
	}
	o, err := record.DecodeOverlay(c.values[0])
	if err != nil {
		return nil, refuse(ErrInvalid, "overlay: %v", err)
	}
	key := record.OverlayKey(o.ID)
	old, ok := t.get(key)
	if err := match(c.meta, "overlay "+o.ID, old.Index); err != nil {
		return nil, err
	}
	if ok && old.Value == c.values[0] {
		return []item{{index: old.Index}}, nil
	}
	if err := t.room(0, t.growth(key, old, c.values[0])); err != nil {
		return nil, err
	}
	t.put(key, c.values[0], expiresOf(old), o.Expires)
	return []item{{created: !ok, changed: true, index: t.s.pos.Index}}, nil
}

func (t *txn) putFence(c *command) ([]item, error) {
	if len(c.values) != 1 {
		return nil, refuse(ErrInvalid, "fence: %d records", len(c.values))
	}
	f, err := record.DecodeFence(c.values[0])
	if err != nil {
		return nil, refuse(ErrInvalid, "fence: %v", err)
	}
	key := f.Key()
	old, ok := t.get(key)
	if err := match(c.meta, "fence "+string(key), old.Index); err != nil {
		return nil, err
	}
	if err := t.room(0, t.growth(key, old, c.values[0])); err != nil {
		return nil, err
	}
	// A fence acts by its position, so the same one again is a new one.
	t.put(key, c.values[0], 0, 0)
	return []item{{created: !ok, changed: true, index: t.s.pos.Index}}, nil
}

func (t *txn) deleteKey(c *command, key record.Key, what string) ([]item, error) {
	e, ok := t.get(key)
	if err := match(c.meta, what, e.Index); err != nil {
		return nil, err
	}
	if !ok {
		return nil, refuse(ErrNotFound, "%s does not exist", what)
	}
	t.remove(key, expiresOf(e))
	return t.changed(), nil
}

// expire removes what expired by the leader's time, oldest first.
func (t *txn) expire() ([]item, error) {
	for range maxExpired {
		k, ok := t.expiry.least()
		if !ok {
			break
		}
		ms, key := split(k)
		if int64(ms) > t.s.now {
			break
		}
		t.remove(record.Key(key), int64(ms))
	}
	return t.changed(), nil
}

func (t *txn) server(c *command) ([]item, error) {
	if c.op == opRemoveServer {
		if _, ok := t.servers.drop(c.target); !ok {
			return nil, refuse(ErrNotFound, "server %s is not known", c.target)
		}
		return t.changed(), nil
	}
	if len(c.values) != 1 {
		return nil, refuse(ErrInvalid, "server: %d records", len(c.values))
	}
	s, err := decodeServerInfo(c.values[0])
	if err != nil {
		return nil, refuse(ErrInvalid, "server: %v", err)
	}
	if old, ok := t.servers.get(s.ID); ok && old == s {
		return []item{{index: t.s.pos.Index}}, nil
	}
	t.servers.set(s.ID, s)
	return t.changed(), nil
}

func (t *txn) member(c *command) ([]item, error) {
	if c.op == opRemoveMember {
		if _, ok := t.members.drop(c.target); !ok {
			return nil, refuse(ErrNotFound, "member %s is not in the roster", c.target)
		}
		return t.changed(), nil
	}
	changed := false
	for _, v := range c.values {
		m, err := decodeMember(v)
		if err != nil {
			return nil, refuse(ErrInvalid, "member: %v", err)
		}
		m.Since = t.s.pos.Index
		if old, ok := t.members.get(m.ID); ok {
			m.Since = old.Since
			if m == old {
				continue
			}
		}
		t.members.set(m.ID, m)
		changed = true
	}
	return []item{{changed: changed, index: t.s.pos.Index}}, nil
}

func (t *txn) changed() []item { return []item{{changed: true, index: t.s.pos.Index}} }

// growth is how many bytes more the entry of a key will count.
func (t *txn) growth(key record.Key, old record.Entry, value string) int64 {
	n := len(value) - len(old.Value)
	if old.Key == "" {
		n += len(key)
	}
	return int64(n)
}

// prefix returns the live entries whose key starts with p.
func (t *txn) prefix(p record.Key) []record.Entry {
	var out []record.Entry
	for _, e := range t.entries.under(string(p)) {
		out = append(out, e)
	}
	return out
}

// expiresOf returns when a live entry expires, 0 for never.
func expiresOf(e record.Entry) int64 {
	switch e.Key.Kind() {
	case record.KindInstance:
		if in, err := record.DecodeInstance(e.Value); err == nil {
			return in.Expires
		}
	case record.KindOverlay:
		if o, err := record.DecodeOverlay(e.Value); err == nil {
			return o.Expires
		}
	}
	return 0
}
