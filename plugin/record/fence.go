package record

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// OriginID names one writer of the mesh: a random UUID per data directory.
type OriginID [16]byte

// IsZero reports whether the id is unset.
func (o OriginID) IsZero() bool { return o == OriginID{} }

// String returns the UUID form, 8-4-4-4-12 hex digits.
func (o OriginID) String() string {
	h := hex.EncodeToString(o[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseOriginID reads the form that String writes.
func ParseOriginID(s string) (OriginID, error) {
	var o OriginID
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(o) || s != OriginID(b).String() {
		return OriginID{}, invalid("origin", s, "is not an origin id", "use a UUID in lower case")
	}
	return OriginID(b), nil
}

// FenceKind says what a fence hides.
type FenceKind uint8

// The kinds of fence.
const (
	FenceKill     FenceKind = 1 + iota // one key of one origin
	FenceReap                          // everything of an origin up to an epoch
	FenceClass                         // ephemeral versions of a critical service
	FenceTransfer                      // claims of a key by other origins
)

// String returns the lower-case name of the kind.
func (k FenceKind) String() string {
	switch k {
	case FenceKill:
		return "kill"
	case FenceReap:
		return "reap"
	case FenceClass:
		return "class"
	case FenceTransfer:
		return "transfer"
	}
	return fmt.Sprintf("fence(%d)", uint8(k))
}

// Fence hides gossip versions that were born before the position at which the
// fence was committed.
type Fence struct {
	Kind     FenceKind
	Origin   OriginID // kill, reap; the new owner for transfer
	Epoch    uint64   // reap: the last epoch hidden
	Service  string   // kill, class, transfer
	Instance string   // kill, transfer
	// At is where the fence was committed. It stays when the state moves to a
	// new generation; zero means the position of the entry.
	At Position

	unknown string
}
