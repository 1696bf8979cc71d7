package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// segmentSize is how much of the log one file holds, in bytes.
const segmentSize = 16 << 20

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

// logStore is the write-ahead log. It seals each entry with a checksum and, at
// no cost, with the index up to which the log was applied when it was written
// (raft.Log.Extensions is there for such middleware).
//
// Raft's own RestoreCommittedLogs is not used: raft 1.8.0 hands the entries to
// a goroutine that it has not started yet, so more than 128 batches block
// NewRaft for ever, and the configurations among them are lost. Open replays
// the log instead, before Raft starts.
type logStore struct {
	*wal.WAL
	applied *atomic.Uint64
	guard   stallGuard
	recent  recent
}

func openLog(dir string, segment int, log hclog.Logger, applied *atomic.Uint64) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	w, err := wal.Open(dir, wal.WithSegmentSize(segment), wal.WithLogger(log), wal.WithMetaStore(&metaStore{}))
	if err != nil {
		if errors.Is(err, os.ErrPermission) || isDiskFull(err) {
			return nil, fmt.Errorf("open log %s: %w", dir, err)
		}
		return nil, fmt.Errorf("%w: log %s: %w; wipe the data directory with fluid-agent reset and join again, or restore a snapshot", ErrCorrupt, dir, err)
	}
	return &logStore{WAL: w, applied: applied}, nil
}

// StoreLog implements raft.LogStore.
func (l *logStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (l *logStore) StoreLogs(logs []*raft.Log) error {
	copies := make([]raft.Log, len(logs)) // raft goes on using its own
	marked := make([]*raft.Log, len(logs))
	applied := l.applied.Load()
	for i, e := range logs {
		copies[i] = *e
		copies[i].Extensions = sealEntry(e, applied)
		marked[i] = &copies[i]
	}
	if err := l.guard.write(func() error { return l.WAL.StoreLogs(marked) }); err != nil {
		l.recent.forget()
		return err
	}
	l.recent.add(copies)
	return nil
}

// GetLog implements raft.LogStore.
func (l *logStore) GetLog(index uint64, e *raft.Log) error {
	if l.recent.get(index, e) {
		return nil
	}
	if err := l.WAL.GetLog(index, e); err != nil {
		return err
	}
	if len(e.Extensions) != sealSize || e.Index != index || !bytes.Equal(e.Extensions, sealEntry(e, sealedApplied(e))) {
		return fmt.Errorf("%w: checksum of log entry %d differs", ErrCorrupt, index)
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (l *logStore) DeleteRange(lo, hi uint64) error {
	if err := l.guard.failed(); err != nil {
		return err
	}
	l.recent.forget()
	return l.WAL.DeleteRange(lo, hi)
}

// Set implements raft.StableStore.
func (l *logStore) Set(key, val []byte) error {
	l.guard.wait()
	return l.WAL.Set(key, val)
}

// SetUint64 implements raft.StableStore.
func (l *logStore) SetUint64(key []byte, val uint64) error {
	l.guard.wait()
	return l.WAL.SetUint64(key, val)
}

// sealSize is the length of an entry's seal: an applied index and a checksum.
// raft-wal checks its own checksums only when it recovers the last segment,
// not when it reads an entry, and cannot be given another codec (it writes the
// number of its own into every segment).
const sealSize = 12

// sealEntry returns the seal of an entry that was stored when the log was
// applied up to the index.
func sealEntry(e *raft.Log, applied uint64) []byte {
	b := make([]byte, 0, 40)
	b = binary.BigEndian.AppendUint64(b, applied)
	b = binary.BigEndian.AppendUint64(b, e.Index)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	b = append(b, byte(e.Type))
	sum := crc32.Update(crc32.Checksum(b, crcTable), crcTable, e.Data)
	return binary.BigEndian.AppendUint32(b[:8], sum)
}

func sealedApplied(e *raft.Log) uint64 { return binary.BigEndian.Uint64(e.Extensions) }

// appliedBefore returns the applied index that the last entry carries, 0 for
// an empty log.
func (l *logStore) appliedBefore() (uint64, error) {
	last, err := l.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	var e raft.Log
	if err := l.GetLog(last, &e); err != nil {
		return 0, err
	}
	return sealedApplied(&e), nil
}

// mark remembers on disk up to where the log was applied. It is written
// without fsync after each batch: that survives the death of the process, and
// the log itself carries a slightly older value through a loss of power. An
// entry is in the log, fsynced, before it can be applied, so a mark beyond the
// log's end proves that the log has lost its tail.
type mark struct {
	applied atomic.Uint64
	mu      sync.Mutex // guards file
	file    *os.File
}

// markSize is an index and its checksum; the file holds them twice, so that a
// flipped bit does not lose them.
const markSize = 12

// openMark opens the mark. A mark that does not read counts as none.
func openMark(path string) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open applied mark: %w", err)
	}
	m := &mark{file: f}
	for _, off := range []int64{0, markSize} {
		var b [markSize]byte
		if n, _ := f.ReadAt(b[:], off); n == markSize && crc32.Checksum(b[:8], crcTable) == binary.BigEndian.Uint32(b[8:]) {
			m.applied.Store(max(m.applied.Load(), binary.BigEndian.Uint64(b[:8])))
		}
	}
	return m, nil
}

// set writes the mark. A write that fails is repeated by the next one; the
// mark on disk is then older, which is safe.
func (m *mark) set(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied.Store(index)
	b := binary.BigEndian.AppendUint64(nil, index)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
	_, _ = m.file.WriteAt(append(b, b...), 0)
}

func (m *mark) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.file.Close()
}
