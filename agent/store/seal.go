package store

import (
	"crypto/ed25519"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Seal signs, with the cluster's key, that the committed state at a position
// has a content hash, so that members of the mesh can take it from anybody. It
// reports false before the cluster is made. The caller answers for the hash
// being that of the position.
func (st State) Seal(pos record.Position, hash uint64) (catalog.Seal, bool) {
	if st.s.cluster.seed == "" {
		return catalog.Seal{}, false
	}
	key := ed25519.NewKeyFromSeed([]byte(st.s.cluster.seed))
	s := catalog.Seal{Position: pos, Hash: hash, PublicKey: string(key.Public().(ed25519.PublicKey))}
	s.Signature = string(ed25519.Sign(key, s.Message()))
	return s, true
}
