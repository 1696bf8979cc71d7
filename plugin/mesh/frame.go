package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Frame kinds. A frame of a kind that a member does not know is dropped.
const (
	framePush   = 1 // deltas, first heard of just now: pass on once
	frameData   = 2 // deltas that were asked for; the last frame of an answer says so
	frameHave   = 3 // heads that moved lately, and the committed position
	frameDigest = 4 // sums over all heads, and the committed position
	frameHeads  = 5 // heads in the buckets that differ
	framePull   = 6 // requests for what is missing of origins
	frameBatch  = 7 // committed state
	frameFetch  = 8 // a request for committed state
	frameAsk    = 9 // a request for the head of one origin

	frameSurvey  = 10 // a question whether the DNS members there are as far as a position
	frameReports = 11 // how far they are

	frameBeacon = 12 // when owners of origins were there: pass on once
)

const (
	maxFrame  = 4 << 20 // bytes of a frame, decompressed
	maxHeads  = 512     // heads in a have, requests in a pull
	buckets   = 256     // of a digest
	pushBytes = 64 << 10
)

// errFrame is returned for a frame that no member of this version sends.
var errFrame = errors.New("mesh: malformed frame")

// have is the body of frameHave and frameHeads.
type have struct {
	reply bool // an answer to one: do not answer again
	at    record.Position
	mask  []byte // of frameHeads: one bit per bucket
	heads []catalog.Head
}

func (h *have) append(b []byte, kind byte) []byte {
	b = append(b, kind, bit(h.reply))
	b = appendPosition(b, h.at)
	b = binary.AppendUvarint(b, uint64(len(h.mask)))
	b = append(b, h.mask...)
	return catalog.AppendHeads(b, h.heads)
}

func decodeHave(b []byte) (h have, err error) {
	if len(b) == 0 {
		return have{}, errFrame
	}
	h.reply = b[0]&1 != 0
	if h.at, b, err = cutPosition(b[1:]); err != nil {
		return have{}, err
	}
	n, k := binary.Uvarint(b)
	if k <= 0 || n > buckets/8 || n > uint64(len(b)-k) {
		return have{}, errFrame
	}
	h.mask, b = b[k:k+int(n)], b[k+int(n):]
	h.heads, err = catalog.DecodeHeads(b)
	return h, err
}

// What a frame of deltas says of the answer that it belongs to.
type ending byte

const (
	endNot  ending = 0 // more frames follow, or it is no answer
	endAll  ending = 1 // that was all there is
	endPart ending = 3 // that was all for now: ask again for the rest
)

// appendDeltas frames deltas; cutDelta reads them one by one.
func appendDeltas(b []byte, kind byte, end ending, deltas []*catalog.Delta) []byte {
	size := 2
	for _, d := range deltas {
		size += d.Size()
	}
	b = append(slices.Grow(b, size), kind, byte(end))
	var body []byte
	for _, d := range deltas {
		body = d.Append(body[:0])
		b = binary.AppendUvarint(b, uint64(len(body)))
		b = append(b, body...)
	}
	return b
}

// cutEnding reads what stands before the deltas.
func cutEnding(b []byte) (end ending, rest []byte, err error) {
	if len(b) == 0 {
		return endNot, nil, errFrame
	}
	return ending(b[0]), b[1:], nil
}

// cutDelta cuts the first encoded delta off the rest.
func cutDelta(b []byte) (delta, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, errFrame
	}
	return b[k : k+int(n)], b[k+int(n):], nil
}

// digest is the body of frameDigest.
type digest struct {
	at   record.Position
	sums [buckets]uint64
}

func (d *digest) append(b []byte) []byte {
	b = appendPosition(append(b, frameDigest), d.at)
	for _, s := range d.sums {
		b = binary.LittleEndian.AppendUint64(b, s)
	}
	return b
}

func decodeDigest(b []byte) (d digest, err error) {
	if d.at, b, err = cutPosition(b); err != nil || len(b) != 8*buckets {
		return digest{}, errFrame
	}
	for i := range d.sums {
		d.sums[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return d, nil
}

// fetch is the body of frameFetch: what comes after a position, or, once the
// answer turned out to be in parts, the parts from one on.
type fetch struct {
	at   record.Position
	part uint64
}

func (f *fetch) append(b []byte) []byte {
	return binary.AppendUvarint(appendPosition(append(b, frameFetch), f.at), f.part)
}

func decodeFetch(b []byte) (f fetch, err error) {
	if f.at, b, err = cutPosition(b); err != nil {
		return fetch{}, err
	}
	part, n := binary.Uvarint(b)
	if n <= 0 || n != len(b) {
		return fetch{}, errFrame
	}
	f.part = part
	return f, nil
}

func appendPosition(b []byte, p record.Position) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, p.Generation), p.Index)
}

func cutPosition(b []byte) (p record.Position, rest []byte, err error) {
	gen, n := binary.Uvarint(b)
	if n <= 0 {
		return p, nil, fmt.Errorf("position: %w", errFrame)
	}
	idx, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return p, nil, fmt.Errorf("position: %w", errFrame)
	}
	return record.Position{Generation: gen, Index: idx}, b[n+m:], nil
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}
