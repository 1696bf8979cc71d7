package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// A snapshot is the magic and a version byte, then frames. A frame is the
// length and the CRC-32C of its content, 4 bytes each, little endian, and the
// content: a zstd frame of at most frameSize bytes and one record more. The
// plain text is records, each a length (uvarint), a kind and a body. The first
// record is the header, the last the trailer, which holds the number of
// records and the content hash.
const (
	snapshotMagic   = "fluidsnp"
	snapshotVersion = 1
	frameSize       = 64 << 10
	maxFrame        = 4 << 20
)

// Kinds of snapshot record.
const (
	snapHeader  = 'H'
	snapEntry   = 'E'
	snapTomb    = 'T'
	snapService = 'S'
	snapKey     = 'K'
	snapServer  = 'R'
	snapMember  = 'M'
	snapStaged  = 'G'
	snapTrailer = 'Z'
)

var (
	crcTable = crc32.MakeTable(crc32.Castagnoli)
	// errSnapshot is wrapped by every error about the content of a snapshot.
	errSnapshot = errors.New("damaged snapshot")
)

type snapshotWriter struct {
	w     io.Writer
	enc   *zstd.Encoder
	plain []byte
	out   []byte
	body  []byte // reused between records
	count uint64
	began time.Time // with the frame
	err   error
}

// maxPause bounds the pause after a frame.
const maxPause = 5 * time.Millisecond

// pause leaves the processor and the disk to others for as long as the last
// frame took: DNS is answered on the same machine, and nobody is in a hurry.
func (sw *snapshotWriter) pause() {
	<-time.After(min(time.Since(sw.began), maxPause))
	sw.began = time.Now()
}

// writeSnapshot streams the state to w.
func writeSnapshot(w io.Writer, s *state) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	defer enc.Close() //nolint:errcheck // nothing was streamed through it
	if _, err := w.Write(append([]byte(snapshotMagic), snapshotVersion)); err != nil {
		return err
	}
	sw := &snapshotWriter{w: w, enc: enc, began: time.Now()}
	b := record.AppendUint(nil, 1, s.pos.Generation)
	b = record.AppendUint(b, 2, s.pos.Index)
	b = record.AppendUint(b, 3, uint64(s.now))
	b = record.AppendString(b, 4, s.cluster.seed)
	sw.record(snapHeader, record.AppendUint(b, 5, s.floor))
	sw.entries(s)
	sw.rest(s)
	b = record.AppendUint(sw.body[:0], 1, sw.count)
	sw.record(snapTrailer, record.AppendUint(b, 2, s.hash))
	sw.flush()
	return sw.err
}

func (sw *snapshotWriter) entries(s *state) {
	for _, e := range s.entries.all() {
		if sw.err != nil {
			return
		}
		b := record.AppendString(sw.body[:0], 1, string(e.Key))
		b = record.AppendUint(b, 2, e.Index)
		sw.body = record.AppendString(b, 3, e.Value)
		sw.record(snapEntry, sw.body)
	}
	for k := range s.tombs.all() {
		index, key := split(k)
		sw.body = record.AppendUint(record.AppendString(sw.body[:0], 1, key), 2, index)
		sw.record(snapTomb, sw.body)
	}
}

func (sw *snapshotWriter) rest(s *state) {
	for k, v := range s.services.all() {
		sw.body = record.AppendUint(record.AppendString(sw.body[:0], 1, k), 2, v.index)
		sw.record(snapService, sw.body)
	}
	for k, v := range s.keys.all() {
		b := record.AppendString(sw.body[:0], 1, k)
		b = record.AppendUint(b, 2, uint64(v.time))
		b = record.AppendString(b, 3, v.digest)
		sw.body = record.AppendString(b, 4, v.reply)
		sw.record(snapKey, sw.body)
	}
	for _, v := range s.servers.all() {
		sw.record(snapServer, v.append(nil))
	}
	if s.staged != nil {
		for _, piece := range s.staged.pieces {
			sw.body = record.AppendElem(record.AppendString(sw.body[:0], 1, s.staged.id), 2, piece)
			sw.record(snapStaged, sw.body)
		}
	}
	for _, v := range s.members.all() {
		sw.record(snapMember, v.append(nil))
	}
}

func (sw *snapshotWriter) record(kind byte, body []byte) {
	sw.plain = binary.AppendUvarint(sw.plain, uint64(len(body)+1))
	sw.plain = append(append(sw.plain, kind), body...)
	sw.count++
	if len(sw.plain) >= frameSize {
		sw.flush()
		sw.pause()
	}
}

func (sw *snapshotWriter) flush() {
	if sw.err != nil || len(sw.plain) == 0 {
		return
	}
	sw.out = sw.enc.EncodeAll(sw.plain, append(sw.out[:0], make([]byte, 8)...))
	binary.LittleEndian.PutUint32(sw.out, uint32(len(sw.out)-8))
	binary.LittleEndian.PutUint32(sw.out[4:], crc32.Checksum(sw.out[8:], crcTable))
	_, sw.err = sw.w.Write(sw.out)
	sw.plain = sw.plain[:0]
}

// snapshotReader builds a state from records.
type snapshotReader struct {
	t     *txn
	count uint64
	floor uint64
	done  bool
	// instances counts those of each service until its own record comes.
	instances map[string]int
	changes   []change // of the entries, in order of key
}

// readSnapshot reads what writeSnapshot wrote, and checks all of it.
func readSnapshot(r io.Reader) (*state, error) {
	head := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("%w: read magic: %w", errSnapshot, err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: not a Fluid snapshot", errSnapshot)
	}
	if v := head[len(snapshotMagic)]; v != snapshotVersion {
		return nil, fmt.Errorf("%w: format %d, this version reads format %d; use the version that wrote it", errSnapshot, v, snapshotVersion)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	sr := &snapshotReader{t: (&state{}).txn(), instances: map[string]int{}}
	for n := 0; ; n++ {
		plain, err := readFrame(r, dec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = sr.frame(plain)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: frame %d: %w", errSnapshot, n, err)
		}
	}
	return sr.finish()
}

func readFrame(r io.Reader, dec *zstd.Decoder) (string, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err // io.EOF at a frame's border only
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return "", fmt.Errorf("length %d", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return "", io.ErrUnexpectedEOF
	}
	if crc32.Checksum(body, crcTable) != binary.LittleEndian.Uint32(head[4:]) {
		return "", errors.New("checksum differs")
	}
	plain, err := dec.DecodeAll(body, nil)
	return string(plain), err
}

func (sr *snapshotReader) frame(s string) error {
	for s != "" {
		n, w := uvarint(s)
		if w <= 0 || n == 0 || n > uint64(len(s)-w) {
			return errors.New("truncated record")
		}
		kind, body := s[w], s[w+1:uint64(w)+n]
		s = s[uint64(w)+n:]
		if sr.done || (kind == snapHeader) != (sr.count == 0) {
			return errors.New("record out of place")
		}
		if err := sr.record(kind, body); err != nil {
			return fmt.Errorf("record %c: %w", kind, err)
		}
		sr.count++
	}
	return nil
}

// parts are the fields that snapshot records are made of.
type parts struct {
	str [6]string
	num [6]uint64
}

func readParts(body string) (p parts, err error) {
	err = eachField(body, func(f field) error {
		if f.id < len(p.str) {
			p.str[f.id], p.num[f.id] = f.data, f.num
		}
		return nil
	})
	return p, err
}

func (sr *snapshotReader) record(kind byte, body string) error {
	p, err := readParts(body)
	if err != nil {
		return err
	}
	t := sr.t
	switch kind {
	case snapHeader:
		t.s.pos = record.Position{Generation: p.num[1], Index: p.num[2]}
		t.s.now, sr.floor = int64(p.num[3]), p.num[5]
		if p.str[4] != "" {
			if len(p.str[4]) != 32 {
				return errors.New("cluster key")
			}
			t.s.cluster = makeCluster(p.str[4])
		}
	case snapEntry:
		sr.entry(record.Entry{Key: record.Key(p.str[1]), Index: p.num[2], Value: p.str[3]})
	case snapTomb:
		t.tombs.set(numbered(p.num[2], p.str[1]), struct{}{})
		t.tombOf.set(p.str[1], p.num[2])
	case snapService:
		t.services.set(p.str[1], serviceStat{index: p.num[2], instances: sr.instances[p.str[1]]})
		delete(sr.instances, p.str[1])
	case snapKey:
		t.keys.set(p.str[1], usedKey{time: int64(p.num[2]), digest: p.str[3], reply: p.str[4]})
		t.keyAges.set(numbered(p.num[2], p.str[1]), struct{}{})
	case snapServer:
		s, err := decodeServerInfo(body)
		t.servers.set(s.ID, s)
		return err
	case snapMember:
		m, err := decodeMember(body)
		t.members.set(m.ID, m)
		return err
	case snapStaged:
		if t.s.staged == nil {
			t.s.staged = &staged{id: p.str[1]}
		}
		t.s.staged.pieces = append(t.s.staged.pieces, p.str[2])
		t.s.staged.size += len(p.str[2])
	case snapTrailer:
		sr.done = true
		if p.num[1] != sr.count || p.num[2] != t.s.hash {
			return errors.New("content does not add up")
		}
	default:
		return errors.New("not known to this version")
	}
	return nil
}

func (sr *snapshotReader) entry(e record.Entry) {
	t := sr.t
	t.entries.set(string(e.Key), e)
	sr.changes = append(sr.changes, change{e.Index, e.Key})
	if x := expiresOf(e); x > 0 {
		t.expiry.set(numbered(uint64(x), e.Key), struct{}{})
	}
	t.s.hash += catalog.EntryHash(e)
	t.s.bytes += int64(len(e.Key) + len(e.Value))
	if e.Key.Kind() == record.KindInstance {
		t.s.instances++
		sr.instances[e.Key.Service()]++
	}
}

func (sr *snapshotReader) finish() (*state, error) {
	if len(sr.instances) > 0 {
		return nil, fmt.Errorf("%w: instances of %d services without a record", errSnapshot, len(sr.instances))
	}
	if !sr.done {
		return nil, fmt.Errorf("%w: it ends early", errSnapshot)
	}
	sr.t.s.floor, sr.t.s.byIndex = sr.floor, sorted(sr.changes)
	return sr.t.commit(), nil
}
