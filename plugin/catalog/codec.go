package catalog

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// The encodings start with a byte that names the format, so that a later
// format can stand beside this one. Numbers are unsigned varints, strings are
// preceded by their length.
const (
	formatDelta = 1
	formatHeads = 2
	formatWants = 3
	formatBatch = 4
)

// Append appends the encoding of the delta to b.
func (d *Delta) Append(b []byte) []byte {
	b = append(b, formatDelta)
	b = append(b, d.Origin[:]...)
	b = appendNums(b, d.Epoch, d.Nonce, d.Base, d.From, d.To-d.From, d.ResetTo, d.Floor, uint64(len(d.Items)))
	last := d.From
	for i := range d.Items {
		it := &d.Items[i]
		flags := byte(0)
		if it.Deleted {
			flags = 1
		}
		b = append(b, flags)
		b = appendNums(b, it.Seq-last, uint64(it.HLC), it.Born.Generation, it.Born.Index)
		last = it.Seq
		b = appendText(b, string(it.Key))
		b = appendText(b, it.Value)
		b = appendText(b, it.Vector)
	}
	return b
}

// DecodeDelta reads what Append wrote. The result does not share b. It returns
// an error that wraps ErrDelta for anything else, and allocates no more than a
// small multiple of len(b).
func DecodeDelta(b []byte) (Delta, error) {
	r := reader{b: b}
	var d Delta
	r.format(formatDelta)
	r.origin(&d.Origin)
	d.Epoch, d.Nonce, d.Base, d.From = r.num(), r.num(), r.num(), r.num()
	d.To = d.From + r.num()
	d.ResetTo, d.Floor = r.num(), r.num()
	n := r.count(8)
	d.Items = make([]Item, 0, n)
	last := d.From
	for range n {
		var it Item
		flags := r.byte()
		it.Deleted = flags&1 != 0
		it.Seq = last + r.num()
		last = it.Seq
		it.HLC = HLC(r.num())
		it.Born = r.position()
		it.Key, it.Value, it.Vector = record.Key(r.text()), r.text(), r.text()
		d.Items = append(d.Items, it)
	}
	if err := r.done("delta"); err != nil {
		return Delta{}, err
	}
	return d, d.check()
}

// Known reports whether Merge would take nothing in from an encoded delta. It
// reads the head of the delta only: most of what a member hears it heard before.
func (c *Catalog) Known(b []byte) bool {
	r := reader{b: b}
	var d Delta
	r.format(formatDelta)
	r.origin(&d.Origin)
	d.Epoch, d.Nonce, d.Base, d.From = r.num(), r.num(), r.num(), r.num()
	d.To = d.From + r.num()
	d.ResetTo = r.num()
	o := c.origins[d.Origin]
	if r.bad || o == nil || o.cur == nil || d.To < d.From {
		return false
	}
	switch order := o.cur.compare(d.Epoch, d.Nonce); {
	case order != 0:
		return order > 0
	case d.ResetTo != 0:
		return d.ResetTo <= o.cur.watermark && !o.cur.doubted
	}
	return o.cur.covers(d.From, d.To)
}

// AppendHeads appends the encoding of heads to b.
func AppendHeads(b []byte, heads []Head) []byte {
	b = append(b, formatHeads)
	b = appendNums(b, uint64(len(heads)))
	for _, h := range heads {
		b = append(b, h.Origin[:]...)
		b = appendNums(b, h.Epoch, h.Nonce, h.Watermark, h.Hash)
	}
	return b
}

// DecodeHeads reads what AppendHeads wrote, as DecodeDelta does.
func DecodeHeads(b []byte) ([]Head, error) {
	r := reader{b: b}
	r.format(formatHeads)
	n := r.count(20)
	out := make([]Head, 0, n)
	for range n {
		var h Head
		r.origin(&h.Origin)
		h.Epoch, h.Nonce, h.Watermark, h.Hash = r.num(), r.num(), r.num(), r.num()
		out = append(out, h)
	}
	return out, r.done("heads")
}

// AppendWants appends the encoding of requests to b.
func AppendWants(b []byte, wants []Want) []byte {
	b = append(b, formatWants)
	b = appendNums(b, uint64(len(wants)))
	for _, w := range wants {
		flags := byte(0)
		if w.Whole {
			flags = 1
		}
		b = append(append(b, w.Origin[:]...), flags)
		b = appendNums(b, w.Epoch, w.Nonce, w.From)
	}
	return b
}

// DecodeWants reads what AppendWants wrote, as DecodeDelta does.
func DecodeWants(b []byte) ([]Want, error) {
	r := reader{b: b}
	r.format(formatWants)
	n := r.count(20)
	out := make([]Want, 0, n)
	for range n {
		var w Want
		r.origin(&w.Origin)
		w.Whole = r.byte()&1 != 0
		w.Epoch, w.Nonce, w.From = r.num(), r.num(), r.num()
		out = append(out, w)
	}
	return out, r.done("wants")
}

// Seal is what a cluster's key signs of a committed state. Who knows the
// cluster's id can check it, and with it a state that came from anybody.
type Seal struct {
	Position  record.Position
	Hash      uint64 // content hash of the state at Position
	PublicKey string // Ed25519, 32 bytes; its fingerprint is the cluster's id
	Signature string // over Message, 64 bytes
}

// Message returns the bytes that the signature covers.
func (s *Seal) Message() []byte {
	return appendNums([]byte("fluid committed state\n"), s.Position.Generation, s.Position.Index, s.Hash)
}

// Batch is committed state on its way through the mesh: the entries that
// changed in (Prev, Seal.Position], or one part of the full state there.
type Batch struct {
	Prev    record.Position
	Seal    Seal
	Full    bool   // the batch is part Part of Parts of the full state; Prev is not used
	Part    uint64 // from 0
	Parts   uint64
	Entries []record.Entry
}

// Size returns an upper bound of the encoded size in bytes.
func (b *Batch) Size() int {
	n := 256
	for i := range b.Entries {
		n += 24 + len(b.Entries[i].Key) + len(b.Entries[i].Value)
	}
	return n
}

// Append appends the encoding of the batch to buf.
func (b *Batch) Append(buf []byte) []byte {
	flags := byte(0)
	if b.Full {
		flags = 1
	}
	buf = append(buf, formatBatch, flags)
	buf = appendNums(buf, b.Prev.Generation, b.Prev.Index,
		b.Seal.Position.Generation, b.Seal.Position.Index, b.Seal.Hash, b.Part, b.Parts)
	buf = appendText(buf, b.Seal.PublicKey)
	buf = appendText(buf, b.Seal.Signature)
	buf = appendNums(buf, uint64(len(b.Entries)))
	for _, e := range b.Entries {
		flags := byte(0)
		if e.Deleted {
			flags = 1
		}
		buf = append(buf, flags)
		buf = appendNums(buf, e.Index)
		buf = appendText(buf, string(e.Key))
		buf = appendText(buf, e.Value)
	}
	return buf
}

// DecodeBatch reads what Append wrote, as DecodeDelta does.
func DecodeBatch(buf []byte) (Batch, error) {
	r := reader{b: buf}
	var b Batch
	r.format(formatBatch)
	b.Full = r.byte()&1 != 0
	b.Prev, b.Seal.Position = r.position(), r.position()
	b.Seal.Hash, b.Part, b.Parts = r.num(), r.num(), r.num()
	b.Seal.PublicKey, b.Seal.Signature = r.text(), r.text()
	n := r.count(4)
	b.Entries = make([]record.Entry, 0, n)
	for range n {
		var e record.Entry
		e.Deleted = r.byte()&1 != 0
		e.Index = r.num()
		e.Key, e.Value = record.Key(r.text()), r.text()
		b.Entries = append(b.Entries, e)
	}
	return b, r.done("batch")
}

func appendNums(b []byte, nums ...uint64) []byte {
	for _, n := range nums {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads an encoding; after the first fault it yields zero values.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) format(want byte) {
	if r.byte() != want {
		r.bad = true
	}
}

func (r *reader) num() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads the number of things of at least size bytes that follow.
func (r *reader) count(size int) int {
	n := r.num()
	if r.bad || n > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.num()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) position() record.Position {
	gen := r.num()
	return record.Position{Generation: gen, Index: r.num()}
}

func (r *reader) origin(id *record.OriginID) {
	if r.bad || len(r.b) < len(id) {
		r.bad = true
		return
	}
	r.b = r.b[copy(id[:], r.b):]
}

// done reports what was wrong, or left over.
func (r *reader) done(what string) error {
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("catalog: decode %s: %w", what, ErrDelta)
	}
	return nil
}

// partBytes is about how much of a full state one batch carries.
const partBytes = 512 << 10

// Batches builds the batches that bring a reader at pos to the sealed position of
// this catalog: one increment if what changed is known and small, else the full
// state in parts. It returns nil if the reader is not behind, or if the seal is
// not of this catalog's state.
func (c *Catalog) Batches(pos record.Position, seal Seal) []Batch {
	s := c.slot
	if !pos.Before(s.pos) || seal.Position != s.pos || seal.Hash != s.hash {
		return nil
	}
	if entries, ok := c.Since(pos); ok {
		b := Batch{Prev: pos, Seal: seal, Entries: entries}
		if b.Size() <= 2*partBytes {
			return []Batch{b}
		}
	}
	return c.Parts(seal)
}

// Parts builds the batches of the full state, whatever the reader has. It
// returns nil if the seal is not of this catalog's state.
func (c *Catalog) Parts(seal Seal) []Batch {
	s := c.slot
	if s.pos.IsZero() || seal.Position != s.pos || seal.Hash != s.hash {
		return nil
	}
	var out []Batch
	part, size := Batch{Seal: seal, Full: true}, 0
	for e := range s.entries() {
		part.Entries = append(part.Entries, e)
		if size += 24 + len(e.Key) + len(e.Value); size >= partBytes {
			out = append(out, part)
			part, size = Batch{Seal: seal, Full: true, Part: part.Part + 1}, 0
		}
	}
	out = append(out, part)
	for i := range out {
		out[i].Parts = uint64(len(out))
	}
	return slices.Clip(out)
}
