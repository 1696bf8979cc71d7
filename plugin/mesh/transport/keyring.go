package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

var (
	// ErrUnknownKey is returned when a key id is not in the ring.
	ErrUnknownKey = errors.New("key is not in the ring")
	// ErrPrimaryKey is returned when the key that encrypts would be removed.
	ErrPrimaryKey = errors.New("key is the one that encrypts: use another key first")
	// ErrRingFull is returned when a ring already holds MaxKeys keys.
	ErrRingFull = fmt.Errorf("ring holds %d keys already: remove one first", MaxKeys)
	// ErrNoKeys is returned when a ring would have no key.
	ErrNoKeys = errors.New("ring needs at least one key")
)

// Keyring holds the keys of a mesh: the first one encrypts, all decrypt. A key
// is changed without losing traffic by adding the new one at every member,
// then using it at every member, then removing the old one.
//
// A Keyring is safe for concurrent use. It never prints a key.
type Keyring struct {
	// mu guards keys and changed. keys is replaced, never changed in place, so
	// a slice that was handed out stays what it was.
	mu      sync.Mutex
	keys    []Key
	changed chan struct{}
}

// KeyInfo describes a key of a ring without telling it.
type KeyInfo struct {
	ID      KeyID
	Bits    int // 128, 192 or 256
	Primary bool
}

// NewKeyring returns a ring of these keys; the first one encrypts. A key given
// twice counts once.
func NewKeyring(keys ...Key) (*Keyring, error) {
	r := &Keyring{changed: make(chan struct{})}
	if err := r.Replace(keys); err != nil {
		return nil, err
	}
	return r, nil
}

// Add puts a key at the end of the ring: it decrypts, and does not encrypt
// before Use. Adding a key that is there changes nothing.
func (r *Keyring) Add(k Key) error {
	if k.size == 0 {
		return ErrNoKeys
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.index(k.id); i >= 0 {
		if !r.keys[i].equal(k) {
			return fmt.Errorf("add key %s: another key of the ring has this id: make a new key", k.id)
		}
		return nil
	}
	if len(r.keys) >= MaxKeys {
		return fmt.Errorf("add key %s: %w", k.id, ErrRingFull)
	}
	r.set(append(slices.Clone(r.keys), k))
	return nil
}

// Use makes a key of the ring the one that encrypts.
func (r *Keyring) Use(id KeyID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.index(id)
	switch {
	case i < 0:
		return fmt.Errorf("use key %s: %w: add it at every member first", id, ErrUnknownKey)
	case i > 0:
		k := r.keys[i]
		r.set(append([]Key{k}, slices.Delete(slices.Clone(r.keys), i, i+1)...))
	}
	return nil
}

// Remove takes a key out of the ring. The key that encrypts cannot be removed.
func (r *Keyring) Remove(id KeyID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.index(id)
	switch {
	case i < 0:
		return fmt.Errorf("remove key %s: %w", id, ErrUnknownKey)
	case i == 0:
		return fmt.Errorf("remove key %s: %w", id, ErrPrimaryKey)
	}
	r.set(slices.Delete(slices.Clone(r.keys), i, i+1))
	return nil
}

// Replace sets the whole ring at once, as when key files are read again. On an
// error the ring stays what it was.
func (r *Keyring) Replace(keys []Key) error {
	var next []Key
	for _, k := range keys {
		if k.size == 0 {
			return ErrNoKeys
		}
		i := slices.IndexFunc(next, func(l Key) bool { return l.id == k.id })
		switch {
		case i < 0:
			next = append(next, k)
		case !next[i].equal(k):
			return fmt.Errorf("two keys have the id %s: make a new key", k.id)
		}
	}
	if len(next) == 0 {
		return ErrNoKeys
	}
	if len(next) > MaxKeys {
		return ErrRingFull
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.EqualFunc(r.keys, next, Key.equal) {
		r.set(next)
	}
	return nil
}

// List describes the keys, the one that encrypts first.
func (r *Keyring) List() []KeyInfo {
	keys := r.snapshot()
	infos := make([]KeyInfo, len(keys))
	for i, k := range keys {
		infos[i] = KeyInfo{ID: k.id, Bits: 8 * k.size, Primary: i == 0}
	}
	return infos
}

// Keys returns the keys, the one that encrypts first, for storing them.
func (r *Keyring) Keys() []Key { return slices.Clone(r.snapshot()) }

// Changed returns a channel that is closed at the next change.
func (r *Keyring) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// String tells the ids of the keys.
func (r *Keyring) String() string {
	names := []string{"keyring"}
	for _, k := range r.List() {
		names = append(names, k.ID.String())
	}
	return strings.Join(names, " ")
}

// Format prints what String returns, for every verb.
func (r *Keyring) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.String()) }

// LogValue returns what String returns.
func (r *Keyring) LogValue() slog.Value { return slog.StringValue(r.String()) }

// snapshot returns the keys as they are now; the slice must not be changed.
func (r *Keyring) snapshot() []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys
}

// index finds a key by id. The caller holds mu.
func (r *Keyring) index(id KeyID) int {
	return slices.IndexFunc(r.keys, func(k Key) bool { return k.id == id })
}

// set installs keys and wakes who waits for a change. The caller holds mu.
func (r *Keyring) set(keys []Key) {
	r.keys = keys
	close(r.changed)
	r.changed = make(chan struct{})
}

func findKey(keys []Key, id KeyID) (Key, bool) {
	for _, k := range keys {
		if k.id == id {
			return k, true
		}
	}
	return Key{}, false
}
