package record

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// The encoding is the protobuf wire format (varint and length-delimited fields
// only), written in field order with zero values left out, so that equal
// records have equal bytes. Unknown fields are kept in the order they came and
// written after the known ones.

const (
	wireVarint = 0
	wireBytes  = 2
)

// AppendUint appends a varint field to b, nothing if v is 0.
func AppendUint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(field)<<3|wireVarint)
	return binary.AppendUvarint(b, v)
}

// AppendString appends a bytes field to b, nothing if v is empty.
func AppendString[T string | []byte](b []byte, field int, v T) []byte {
	if len(v) == 0 {
		return b
	}
	return AppendElem(b, field, v)
}

// AppendElem appends one element of a repeated field, also if it is empty.
func AppendElem[T string | []byte](b []byte, field int, v T) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|wireBytes)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// fields calls f for each field of s. A varint comes as num with data empty,
// bytes come as data, which shares s. If f returns false the field is appended
// to the unknown fields that are returned.
func fields(s string, f func(field int, num uint64, data string) (known bool, err error)) (unknown string, err error) {
	var kept []byte
	for rest := s; rest != ""; {
		field := rest
		tag, n := uvarint(rest)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<20 {
			return "", fmt.Errorf("%w: bad tag", ErrMalformed)
		}
		rest = rest[n:]
		num, n := uvarint(rest)
		if n <= 0 {
			return "", fmt.Errorf("%w: truncated field %d", ErrMalformed, tag>>3)
		}
		rest = rest[n:]
		var data string
		switch tag & 7 {
		case wireVarint:
		case wireBytes:
			if num > uint64(len(rest)) {
				return "", fmt.Errorf("%w: truncated field %d", ErrMalformed, tag>>3)
			}
			data, rest = rest[:num], rest[num:]
		default:
			return "", fmt.Errorf("%w: wire type %d", ErrMalformed, tag&7)
		}
		known, err := f(int(tag>>3), num, data)
		if err != nil {
			return "", err
		}
		if !known {
			kept = append(kept, field[:len(field)-len(rest)]...)
		}
	}
	return string(kept), nil
}

// uvarint is binary.Uvarint on a string; n <= 0 as there.
func uvarint(s string) (v uint64, n int) {
	// The bytes are only read, so the string may lend them.
	b := unsafe.Slice(unsafe.StringData(s), min(len(s), binary.MaxVarintLen64))
	return binary.Uvarint(b)
}

// narrow checks that a decoded number fits its field.
func narrow[T uint8 | uint16](dst *T, num uint64) error {
	*dst = T(num)
	if uint64(*dst) != num {
		return fmt.Errorf("%w: number %d out of range", ErrMalformed, num)
	}
	return nil
}
