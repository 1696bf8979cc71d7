package mesh

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

// Fingerprint names a key without telling it: 16 hex digits.
func Fingerprint(key []byte) string {
	sum := sha256.Sum256(append([]byte("fluid gossip key\n"), key...))
	return hex.EncodeToString(sum[:8])
}

func fingerprints(keys [][]byte) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = Fingerprint(k)
	}
	return out
}

// checkKeys accepts a ring of at least one key.
func checkKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("%w: the ring would be empty; encryption cannot be switched off while running", ErrKey)
	}
	for i, k := range keys {
		if err := memberlist.ValidateKey(k); err != nil {
			return fmt.Errorf("%w %d: use 16, 24 or 32 bytes", ErrKey, i)
		}
	}
	return nil
}

// dropReason names, for a metric, why something received was not taken in.
func dropReason(err error) string {
	switch {
	case errors.Is(err, catalog.ErrLimit):
		return "limit"
	case errors.Is(err, catalog.ErrReaped):
		return "reaped"
	case errors.Is(err, ErrSeal):
		return "seal"
	}
	return "malformed"
}
