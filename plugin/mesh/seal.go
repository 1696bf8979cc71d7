package mesh

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// ErrSeal is returned for committed state that the cluster did not seal.
var ErrSeal = errors.New("mesh: not sealed by the cluster")

// ClusterID returns the id of the cluster with the public key: 32 hex digits.
func ClusterID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}

// MakeSeal signs the content hash of a committed state with the cluster's key.
func MakeSeal(key ed25519.PrivateKey, pos record.Position, hash uint64) catalog.Seal {
	s := catalog.Seal{Position: pos, Hash: hash, PublicKey: string(key.Public().(ed25519.PublicKey))}
	s.Signature = string(ed25519.Sign(key, s.Message()))
	return s
}

// CheckSeal returns ErrSeal unless the seal is that of the cluster.
func CheckSeal(cluster string, s *catalog.Seal) error {
	pub := ed25519.PublicKey(s.PublicKey)
	if cluster == "" || len(pub) != ed25519.PublicKeySize || ClusterID(pub) != cluster ||
		!ed25519.Verify(pub, s.Message(), []byte(s.Signature)) {
		return fmt.Errorf("state at %v: %w", s.Position, ErrSeal)
	}
	return nil
}

// applyBatch checks an increment against its seal and applies it. It reports
// false if the catalog needs another batch first, or this one not at all.
func applyBatch(c *catalog.Catalog, cluster string, b *catalog.Batch) (catalog.Changes, bool, error) {
	if b.Full || b.Prev != c.Position() || !b.Prev.Before(b.Seal.Position) || b.Prev.Generation != b.Seal.Position.Generation {
		return catalog.Changes{}, false, nil
	}
	if err := CheckSeal(cluster, &b.Seal); err != nil {
		return catalog.Changes{}, false, err
	}
	if c.HashAfter(b.Entries) != b.Seal.Hash {
		return catalog.Changes{}, false, fmt.Errorf("increment to %v has another hash: %w", b.Seal.Position, ErrSeal)
	}
	ch, err := c.Apply(b.Prev, b.Seal.Position, b.Entries)
	return ch, err == nil, err
}

// assembly collects the parts of a full committed state. The parts come in
// order from one peer.
type assembly struct {
	stage *catalog.Stage
	seal  catalog.Seal
	next  uint64
}

// add takes in a part and, with the last one, swaps the state in. It reports
// whether it did.
func (a *assembly) add(c *catalog.Catalog, cluster string, b *catalog.Batch) (catalog.Changes, bool, error) {
	if !c.Position().Before(b.Seal.Position) {
		return catalog.Changes{}, false, nil
	}
	if b.Part == 0 {
		if err := CheckSeal(cluster, &b.Seal); err != nil {
			return catalog.Changes{}, false, err
		}
		*a = assembly{stage: catalog.NewStage(b.Seal.Position, slices.Values(b.Entries)), seal: b.Seal}
	} else {
		if a.stage == nil || b.Seal != a.seal || b.Part != a.next {
			return catalog.Changes{}, false, nil
		}
		a.stage.Add(slices.Values(b.Entries))
	}
	if a.next = b.Part + 1; a.next < b.Parts {
		return catalog.Changes{}, false, nil
	}
	stage := a.stage
	*a = assembly{}
	if stage.Hash() != b.Seal.Hash {
		return catalog.Changes{}, false, fmt.Errorf("state at %v has another hash: %w", b.Seal.Position, ErrSeal)
	}
	ch, err := c.Swap(stage)
	return ch, err == nil, err
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
