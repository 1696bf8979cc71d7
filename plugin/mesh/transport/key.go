package transport

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// MaxKeys is how many keys a Keyring holds at most.
const MaxKeys = 16

const redacted = "[redacted key]"

// KeyID names a key without telling it: the first four bytes of an HMAC under
// the key. It travels in clear on every sealed packet.
type KeyID [4]byte

// String returns the id as eight hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// ParseKeyID reads the form that String writes.
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("key id %q is not eight hexadecimal digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// Key is a secret shared by the members of a mesh: 16, 24 or 32 random bytes.
// However it is printed, logged or marshalled it shows only its KeyID. The
// zero Key is no key. Keys are derived from it per purpose, so that what is
// sealed for packets says nothing about the proofs on streams.
type Key struct {
	secret [32]byte
	size   int
	id     KeyID
}

// NewKey returns the key with these bytes, which are copied. It fails unless
// there are 16, 24 or 32 of them.
func NewKey(secret []byte) (Key, error) {
	switch len(secret) {
	case 16, 24, 32:
	default:
		return Key{}, fmt.Errorf("a key has %d bytes: use 16, 24 or 32 (32, 48 or 64 hexadecimal digits)", len(secret))
	}
	k := Key{size: len(secret)}
	copy(k.secret[:], secret)
	mac := hmac.New(sha256.New, k.bytes())
	mac.Write([]byte("fluid key id"))
	copy(k.id[:], mac.Sum(nil))
	return k, nil
}

// ParseKey reads a key written in hexadecimal. The error never repeats the
// input.
func ParseKey(s string) (Key, error) {
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return Key{}, errors.New("a key is not hexadecimal: make one with 'openssl rand -hex 32'")
	}
	return NewKey(b)
}

// ParseKeys reads a comma list of hexadecimal keys; the first one encrypts.
// Errors name the position of the key in the list, never the key.
func ParseKeys(list string) ([]Key, error) {
	var keys []Key
	for i, s := range strings.Split(list, ",") {
		k, err := ParseKey(s)
		if err != nil {
			return nil, fmt.Errorf("key %d of the list: %w", i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// GenerateKey returns a new random key of 32 bytes.
func GenerateKey() Key {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand, Go 1.24)
	k, err := NewKey(b)
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	return k
}

// ID returns the id of the key.
func (k Key) ID() KeyID { return k.id }

// Hex returns the secret itself, for storing a ring in a file of mode 0600.
func (k Key) Hex() string { return hex.EncodeToString(k.bytes()) }

func (k Key) bytes() []byte { return k.secret[:k.size] }

func (k Key) equal(l Key) bool {
	return k.size == l.size && subtle.ConstantTimeCompare(k.secret[:], l.secret[:]) == 1
}

// derive returns a key of n bytes for one purpose (HKDF-SHA-256, RFC 5869).
func (k Key) derive(salt []byte, purpose string, n int) []byte {
	b, err := hkdf.Key(sha256.New, k.bytes(), salt, purpose, n)
	if err != nil {
		panic(err) // n is far below 255 hashes
	}
	return b
}

// Format prints the redacted form for every verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s %s", redacted, k.id) }

// String returns the redacted form.
func (k Key) String() string { return redacted + " " + k.id.String() }

// LogValue returns the redacted form.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns the redacted form.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
