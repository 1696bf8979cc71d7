package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Commands, outcomes and snapshots use the wire format of package record: the
// protobuf wire format with varint and length-delimited fields, in field
// order, zero values left out. Unlike records, which pass unknown fields on,
// an unknown field of a command is an error: ignoring it would let servers of
// two versions apply one entry differently.

// errWire is wrapped by every decoding error of this package.
var errWire = errors.New("malformed encoding")

const (
	wireVarint = 0
	wireBytes  = 2
)

// field is one decoded field: a number, or bytes that share the input.
type field struct {
	id    int
	num   uint64
	bytes bool
	data  string
}

// eachField calls f for each field of s, in order.
func eachField(s string, f func(field) error) error {
	for s != "" {
		tag, n := uvarint(s)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<20 {
			return fmt.Errorf("%w: bad tag", errWire)
		}
		s = s[n:]
		num, n := uvarint(s)
		if n <= 0 {
			return fmt.Errorf("%w: truncated field %d", errWire, tag>>3)
		}
		s = s[n:]
		fl := field{id: int(tag >> 3), num: num}
		switch tag & 7 {
		case wireVarint:
		case wireBytes:
			if num > uint64(len(s)) {
				return fmt.Errorf("%w: truncated field %d", errWire, fl.id)
			}
			fl.num, fl.bytes, fl.data, s = 0, true, s[:num], s[num:]
		default:
			return fmt.Errorf("%w: wire type %d", errWire, tag&7)
		}
		if err := f(fl); err != nil {
			return err
		}
	}
	return nil
}

// unknownField is the error for a field that this version does not know.
func unknownField(what string, f field) error {
	return fmt.Errorf("%w: %s has field %d, which this version does not know", errWire, what, f.id)
}

// uvarint is binary.Uvarint on a string; n <= 0 as there.
func uvarint(s string) (v uint64, n int) {
	for i := range min(len(s), binary.MaxVarintLen64) {
		c := s[i]
		if c < 0x80 {
			if i == binary.MaxVarintLen64-1 && c > 1 {
				return 0, -1
			}
			return v | uint64(c)<<(7*i), i + 1
		}
		v |= uint64(c&0x7f) << (7 * i)
	}
	return 0, 0
}
