package lastgood

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/fluid-sd/fluid/plugin/record"
)

// magic begins every file; its last byte is the format.
const magic = "fluid last good\x00\x01"

// Kinds of frame. A file is: head, entries..., end, then gossip,
// changes and serials in the order they happened.
const (
	frameHead    = 'H' // member id, cluster id, serial, position
	frameEntries = 'E' // entries of the base
	frameEnd     = 'Z' // number of entries of the base, content hash
	frameChange  = 'C' // previous position, position, entries
	frameSerial  = 'S' // zone serial
	frameGossip  = 'G' // an encoded delta, opaque here
)

const (
	frameHeader = 1 + 4 + 8 // kind, length, checksum
	maxFrame    = 64 << 20  // a batch of changes is far below
	chunk       = 256 << 10 // bytes of entries in one frame of the base
)

// ErrCorrupt is returned for a file that is not, or not any more, what this
// package wrote.
var ErrCorrupt = errors.New("corrupt snapshot")

// checksum covers kind, length and payload.
func checksum(kind byte, payload []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write([]byte{kind})
	_, _ = d.Write(payload)
	return d.Sum64()
}

func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint64(b, checksum(kind, payload))
	return append(b, payload...)
}

// readFrame reads one frame. The payload is valid until the next call with the
// same buffer. It returns io.EOF at the end of the file, and ErrCorrupt for
// anything that is not a whole frame.
func readFrame(r io.Reader, buf *[]byte) (kind byte, payload []byte, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("%w: torn frame", ErrCorrupt)
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: frame of %d bytes", ErrCorrupt, n)
	}
	if cap(*buf) < int(n) {
		*buf = make([]byte, n)
	}
	payload = (*buf)[:n]
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("%w: torn frame", ErrCorrupt)
	}
	if checksum(head[0], payload) != binary.LittleEndian.Uint64(head[5:]) {
		return 0, nil, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	return head[0], payload, nil
}

func appendPosition(b []byte, p record.Position) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, p.Generation), p.Index)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendEntry(b []byte, e record.Entry) []byte {
	b = appendText(b, string(e.Key))
	b = binary.AppendUvarint(b, e.Index)
	if e.Deleted {
		return append(b, 1)
	}
	return appendText(append(b, 0), e.Value)
}

// reader takes values off the front of a payload. The first value that is not
// there makes every later one zero, and bad true.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) position() record.Position {
	return record.Position{Generation: r.uint(), Index: r.uint()}
}

func (r *reader) entry() record.Entry {
	e := record.Entry{Key: record.Key(r.text()), Index: r.uint()}
	if e.Deleted = r.uint() == 1; !e.Deleted {
		e.Value = r.text()
	}
	return e
}

func (r *reader) entries() []record.Entry {
	var out []record.Entry
	for len(r.b) > 0 && !r.bad {
		out = append(out, r.entry())
	}
	return out
}
