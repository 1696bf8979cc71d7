package catalog

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

// EntryHash returns the part of one entry in the content hash of a committed
// state, which is the sum, modulo 2^64, over its live entries. It is 0 for a
// deleted entry, so that tombstones may be kept or dropped freely.
func EntryHash(e record.Entry) uint64 {
	if e.Deleted {
		return 0
	}
	var d xxhash.Digest
	d.Reset()
	hashPart(&d, string(e.Key))
	hashPart(&d, e.Value)
	return sumWith(&d, e.Index)
}

// hashPart adds a string and its length, so that the border between two
// strings counts.
func hashPart(d *xxhash.Digest, s string) {
	_, _ = d.WriteString(s)
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
	_, _ = d.Write(n[:])
}

func sumWith(d *xxhash.Digest, nums ...uint64) uint64 {
	for _, v := range nums {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], v)
		_, _ = d.Write(n[:])
	}
	return d.Sum64()
}
