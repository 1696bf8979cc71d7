package store

import (
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

// segmentSize is how much of the log one file holds.
const segmentSize = 16 << 20

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

// logStore is the write-ahead log. With each write it stores, at no cost, up
// to where the log was applied (Log.Extensions is there for such middleware).
//
// Raft's own RestoreCommittedLogs is not used: raft 1.8.0 hands the entries to
// a goroutine that it has not started yet, so more than 128 batches block
// NewRaft for ever, and the configurations among them are lost. Open replays
// the log instead, before Raft starts.
type logStore struct {
	*wal.WAL
	applied *atomic.Uint64
}

func openLog(dir string, log hclog.Logger, applied *atomic.Uint64) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	w, err := wal.Open(dir, wal.WithSegmentSize(segmentSize), wal.WithLogger(log))
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
	if len(logs) == 0 {
		return nil
	}
	marked := append([]*raft.Log(nil), logs...)
	last := *logs[len(logs)-1]
	last.Extensions = binary.BigEndian.AppendUint64(nil, l.applied.Load())
	marked[len(marked)-1] = &last
	return l.WAL.StoreLogs(marked)
}

// appliedBefore returns the applied index that the last entries of the log
// carry, 0 if none does.
func (l *logStore) appliedBefore() (uint64, error) {
	first, err := l.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := l.LastIndex()
	if err != nil {
		return 0, err
	}
	// A write holds at most MaxAppendEntries entries and marks its last, but a
	// truncated tail may have cut that one off.
	for i := last; i >= first && i > 0 && last-i <= 2*maxAppendEntries; i-- {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			return 0, err
		}
		if len(e.Extensions) == 8 {
			return binary.BigEndian.Uint64(e.Extensions), nil
		}
	}
	return 0, nil
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

const markSize = 12

// openMark opens the mark. A mark that does not read counts as none.
func openMark(path string) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open applied mark: %w", err)
	}
	m := &mark{file: f}
	var b [markSize]byte
	if n, _ := f.ReadAt(b[:], 0); n == markSize && crc32.Checksum(b[:8], crcTable) == binary.BigEndian.Uint32(b[8:]) {
		m.applied.Store(binary.BigEndian.Uint64(b[:8]))
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
	_, _ = m.file.WriteAt(b, 0)
}

func (m *mark) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.file.Close()
}
