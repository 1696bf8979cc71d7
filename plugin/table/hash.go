package table

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"unsafe"
)

// seed makes the hashes of one table its own, so that nobody outside can
// choose names that collide.
type seed struct{ a, b uint64 }

func newSeed() seed { return seed{rand.Uint64() | 1, rand.Uint64() | 1} }

// hash is a folded-multiply hash in the manner of wyhash. hash/maphash gives
// as good a one, but its call costs half a lookup; this one is 16 bytes to a
// multiplication.
func (s seed) hash(name string) uint64 {
	// The bytes are only read, so the string may lend them.
	b := unsafe.Slice(unsafe.StringData(name), len(name))
	n := uint64(len(b))
	h := s.a
	for len(b) > 16 {
		h = fold(binary.LittleEndian.Uint64(b)^s.b, binary.LittleEndian.Uint64(b[8:])^h)
		b = b[16:]
	}
	var x, y uint64
	switch {
	case len(b) >= 8:
		x, y = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[len(b)-8:])
	case len(b) >= 4:
		x, y = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))
	case len(b) > 0:
		x = uint64(b[0])<<16 | uint64(b[len(b)/2])<<8 | uint64(b[len(b)-1])
	}
	return fold(fold(x^s.b, y^h), s.a^n)
}

func fold(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return hi ^ lo
}
