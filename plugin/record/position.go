package record

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Position is a committed point of a cluster: how often its history was
// replaced, and the Raft index in that history. The zero Position is before
// everything.
type Position struct {
	Generation uint64
	Index      uint64
}

// Compare orders positions by generation, then by index.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Generation, q.Generation); c != 0 {
		return c
	}
	return cmp.Compare(p.Index, q.Index)
}

// Before reports whether p comes before q.
func (p Position) Before(q Position) bool { return p.Compare(q) < 0 }

// IsZero reports whether p is the zero Position.
func (p Position) IsZero() bool { return p == Position{} }

// String returns the position as GENERATION:INDEX.
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Generation, p.Index) }

// ParsePosition reads the form that String writes.
func ParsePosition(s string) (Position, error) {
	gen, idx, ok := strings.Cut(s, ":")
	if ok {
		g, err1 := strconv.ParseUint(gen, 10, 64)
		i, err2 := strconv.ParseUint(idx, 10, 64)
		if err1 == nil && err2 == nil {
			return Position{Generation: g, Index: i}, nil
		}
	}
	return Position{}, invalid("position", s, "is not a position", "use GENERATION:INDEX, for example 1:42")
}
