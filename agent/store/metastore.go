package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/hashicorp/raft-wal/types"

	"github.com/fluid-sd/fluid/plugin/record"
)

var _ types.MetaStore = (*metaStore)(nil)

// metaStore holds what the log must never get wrong: this server's term and
// vote, and which segments make up the log.
//
// raft-wal's own store is a bbolt file, whose pages have no checksum: a flipped
// bit changes a vote in silence, a cut file ends the process with SIGBUS. Here
// the whole content, a few kilobytes, stands twice in one preallocated file,
// each copy with a sequence number and a checksum. A change is written and
// synced to the first copy, then to the second, and is acknowledged after
// both: whatever tears or rots one copy, the other has all that was
// acknowledged. Nothing is allocated later, so a full disk does not matter.
type metaStore struct {
	mu      sync.Mutex // guards what follows
	file    *os.File
	seq     uint64
	current types.PersistentState
	stable  map[string][]byte
}

const (
	metaFile   = "meta"
	slotSize   = 256 << 10
	slotHeader = 20 // magic, sequence number, length, checksum: 4, 8, 4, 4 bytes
	slotMagic  = 0x666d6474
)

// Load implements types.MetaStore.
func (m *metaStore) Load(dir string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	path := filepath.Join(dir, metaFile)
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := m.create(path); err != nil {
			return m.current, fmt.Errorf("create log metadata: %w", err)
		}
	case err != nil:
		return m.current, fmt.Errorf("read log metadata: %w", err)
	default:
		if err := m.read(b); err != nil {
			return m.current, fmt.Errorf("read log metadata %s: %w", path, err)
		}
	}
	m.file, err = os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return m.current, fmt.Errorf("open log metadata: %w", err)
	}
	// Complete what a crash between the two copies left, and repair a copy.
	return m.current, m.write()
}

// create makes an empty file. It refuses to where segments exist: their
// metadata, and with it this server's vote, is lost.
func (m *metaStore) create(path string) error {
	if segments, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.wal")); len(segments) > 0 {
		return fmt.Errorf("%w: %s is missing beside segments of a log", types.ErrCorrupt, path)
	}
	m.stable = map[string][]byte{}
	slot := m.encode()
	b := make([]byte, 2*slotSize)
	copy(b, slot)
	copy(b[slotSize:], slot)
	return writeDurably(path, b)
}

func (m *metaStore) read(b []byte) error {
	found := false
	for off := 0; off < 2*slotSize; off += slotSize {
		if off+slotHeader > len(b) {
			break
		}
		slot := b[off:min(off+slotSize, len(b))]
		n := int64(binary.LittleEndian.Uint32(slot[12:]))
		if binary.LittleEndian.Uint32(slot) != slotMagic || n > int64(len(slot)-slotHeader) {
			continue
		}
		if slotSum(slot[:slotHeader+n]) != binary.LittleEndian.Uint32(slot[16:]) {
			continue
		}
		if seq := binary.LittleEndian.Uint64(slot[4:]); !found || seq > m.seq {
			if err := m.decode(string(slot[slotHeader : slotHeader+n])); err != nil {
				return err
			}
			m.seq, found = seq, true
		}
	}
	if !found {
		return fmt.Errorf("%w: neither copy is whole", types.ErrCorrupt)
	}
	return nil
}

// slotSum is the checksum of a slot without the checksum itself.
func slotSum(slot []byte) uint32 {
	return crc32.Update(crc32.Checksum(slot[:16], crcTable), crcTable, slot[slotHeader:])
}

func (m *metaStore) encode() []byte {
	b := make([]byte, slotHeader)
	b = record.AppendUint(b, 1, m.current.NextSegmentID)
	for _, s := range m.current.Segments {
		e := record.AppendUint(nil, 1, s.ID)
		e = record.AppendUint(e, 2, s.BaseIndex)
		e = record.AppendUint(e, 3, s.MinIndex)
		e = record.AppendUint(e, 4, s.MaxIndex)
		e = record.AppendUint(e, 5, s.Codec)
		e = record.AppendUint(e, 6, s.IndexStart)
		e = record.AppendUint(e, 7, unixNano(s.CreateTime))
		e = record.AppendUint(e, 8, unixNano(s.SealTime))
		e = record.AppendUint(e, 9, uint64(s.SizeLimit))
		b = record.AppendElem(b, 2, e)
	}
	keys := make([]string, 0, len(m.stable))
	for k := range m.stable {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		b = record.AppendElem(b, 3, record.AppendString(record.AppendString(nil, 1, k), 2, m.stable[k]))
	}
	binary.LittleEndian.PutUint32(b, slotMagic)
	binary.LittleEndian.PutUint64(b[4:], m.seq)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-slotHeader))
	binary.LittleEndian.PutUint32(b[16:], slotSum(b))
	return b
}

func unixNano(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func timeOf(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns)).UTC()
}

func (m *metaStore) decode(s string) error {
	m.current, m.stable = types.PersistentState{}, map[string][]byte{}
	return eachField(s, func(f field) error {
		switch f.id {
		case 1:
			m.current.NextSegmentID = f.num
		case 2:
			var n [10]uint64
			err := eachField(f.data, func(f field) error {
				if f.id < len(n) {
					n[f.id] = f.num
				}
				return nil
			})
			m.current.Segments = append(m.current.Segments, types.SegmentInfo{
				ID: n[1], BaseIndex: n[2], MinIndex: n[3], MaxIndex: n[4], Codec: n[5], IndexStart: n[6],
				CreateTime: timeOf(n[7]), SealTime: timeOf(n[8]), SizeLimit: uint32(n[9]),
			})
			return err
		case 3:
			p, err := readParts(f.data)
			m.stable[p.str[1]] = []byte(p.str[2])
			return err
		default:
			return unknownField("log metadata", f)
		}
		return nil
	})
}

// write makes the current content durable in both copies.
func (m *metaStore) write() error {
	m.seq++
	b := m.encode()
	if len(b) > slotSize {
		return fmt.Errorf("log metadata of %d bytes exceeds %d", len(b), slotSize)
	}
	for _, off := range []int64{0, slotSize} {
		if _, err := m.file.WriteAt(b, off); err != nil {
			return fmt.Errorf("write log metadata: %w", err)
		}
		if err := m.file.Sync(); err != nil {
			return fmt.Errorf("write log metadata: %w", err)
		}
	}
	return nil
}

// CommitState implements types.MetaStore.
func (m *metaStore) CommitState(s types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.current
	m.current = types.PersistentState{NextSegmentID: s.NextSegmentID, Segments: append([]types.SegmentInfo(nil), s.Segments...)}
	err := m.write()
	if err != nil {
		m.current = old
	}
	return err
}

// GetStable implements types.MetaStore.
func (m *metaStore) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.stable[string(key)]...), nil
}

// SetStable implements types.MetaStore.
func (m *metaStore) SetStable(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, had := m.stable[string(key)]
	m.stable[string(key)] = append([]byte(nil), value...)
	err := m.write()
	if err != nil && had {
		m.stable[string(key)] = old
	} else if err != nil {
		delete(m.stable, string(key))
	}
	return err
}

// Close implements io.Closer.
func (m *metaStore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return nil
	}
	f := m.file
	m.file = nil
	return f.Close()
}
