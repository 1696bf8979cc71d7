package store

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

var _ raft.SnapshotStore = (*snapshots)(nil)

// snapshots keeps each snapshot in one file: a magic, the length and the
// CRC-32C of the metadata (4 bytes each, little endian), the metadata as JSON,
// and the state as writeSnapshot writes it. Raft's own FileSnapshotStore has no
// checksum over the metadata: a flipped bit in the index of a snapshot would
// shift all that follows.
type snapshots struct {
	dir    string
	retain int
	log    *slog.Logger

	mu sync.Mutex // serialises creating and deleting files
}

const (
	metaMagic      = "fluidmta"
	snapshotSuffix = ".snap"
	damagedSuffix  = ".damaged"
	tmpSuffix      = ".tmp"
	maxMeta        = 1 << 20
)

// openSnapshots opens the snapshots of a data directory and returns the state
// of the newest that is whole, and its index; an empty state and 0 if there is
// none. Damaged ones are set aside, so that Raft does not use them either:
// whether the log makes up for them, Open checks.
func openSnapshots(dir string, retain int, log *slog.Logger) (*snapshots, *state, uint64, error) {
	st := &snapshots{dir: filepath.Join(dir, snapshotDir), retain: retain, log: log}
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return nil, nil, 0, fmt.Errorf("create snapshot directory: %w", err)
	}
	names, err := st.names()
	if err != nil {
		return nil, nil, 0, err
	}
	for _, name := range names {
		meta, s, err := st.load(name)
		if err == nil {
			return st, s, meta.Index, nil
		}
		path := filepath.Join(st.dir, name)
		log.Error("setting a damaged snapshot aside", "file", path, "error", err)
		if err := os.Rename(path, path+damagedSuffix); err != nil {
			return nil, nil, 0, fmt.Errorf("%w: snapshot %s: %w", ErrCorrupt, path, err)
		}
	}
	return st, &state{}, 0, nil
}

// names returns the file names of the finished snapshots, newest first.
func (st *snapshots) names() ([]string, error) {
	des, err := os.ReadDir(st.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var names []string
	for _, de := range des {
		if strings.HasSuffix(de.Name(), snapshotSuffix) {
			names = append(names, de.Name())
		}
	}
	slices.Sort(names) // the term and the index stand in them with leading zeros
	slices.Reverse(names)
	return names, nil
}

// load reads a whole snapshot and checks it.
func (st *snapshots) load(name string) (*raft.SnapshotMeta, *state, error) {
	meta, rc, err := st.Open(strings.TrimSuffix(name, snapshotSuffix))
	if err != nil {
		return nil, nil, err
	}
	s, err := readSnapshot(rc)
	if err == nil && s.pos.Index > meta.Index {
		err = fmt.Errorf("%w: of index %d, holds index %d", errSnapshot, meta.Index, s.pos.Index)
	}
	return meta, s, errors.Join(err, rc.Close())
}

// List implements raft.SnapshotStore. Files whose metadata is damaged are left out.
func (st *snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := st.names()
	if err != nil {
		return nil, err
	}
	var metas []*raft.SnapshotMeta
	for _, name := range names {
		meta, rc, err := st.Open(strings.TrimSuffix(name, snapshotSuffix))
		if err != nil {
			st.log.Error("leaving out a damaged snapshot", "file", name, "error", err)
			continue
		}
		_ = rc.Close()
		metas = append(metas, meta)
	}
	return metas, nil
}

// snapshotFile is an open snapshot; its reads begin after the metadata.
type snapshotFile struct {
	io.Reader
	io.Closer
}

// Open implements raft.SnapshotStore.
func (st *snapshots) Open(id string) (_ *raft.SnapshotMeta, _ io.ReadCloser, err error) {
	f, err := os.Open(filepath.Join(st.dir, id+snapshotSuffix))
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	head := make([]byte, len(metaMagic)+8)
	if _, err := io.ReadFull(f, head); err != nil || string(head[:len(metaMagic)]) != metaMagic {
		return nil, nil, fmt.Errorf("%w: not a snapshot file", errSnapshot)
	}
	n := binary.LittleEndian.Uint32(head[len(metaMagic):])
	if n > maxMeta {
		return nil, nil, fmt.Errorf("%w: %d bytes of metadata", errSnapshot, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil || crc32.Checksum(b, crcTable) != binary.LittleEndian.Uint32(head[len(metaMagic)+4:]) {
		return nil, nil, fmt.Errorf("%w: checksum of the metadata differs", errSnapshot)
	}
	meta := &raft.SnapshotMeta{}
	if err := json.Unmarshal(b, meta); err != nil {
		return nil, nil, fmt.Errorf("%w: metadata: %w", errSnapshot, err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	meta.ID, meta.Size = id, fi.Size()-int64(len(head))-int64(n)
	return meta, snapshotFile{bufio.NewReaderSize(f, frameSize), f}, nil
}

// Create implements raft.SnapshotStore.
func (st *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("create snapshot: metadata version %d is not supported", version)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	var id, path string
	for try := 0; ; try++ { // a snapshot from the leader can have the index of one's own
		id = fmt.Sprintf("%020d-%020d-%04d", term, index, try)
		path = filepath.Join(st.dir, id+snapshotSuffix)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	b, err := json.Marshal(raft.SnapshotMeta{
		Version: version, ID: id, Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	})
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	f, err := os.OpenFile(path+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	k := &snapshotSink{store: st, id: id, path: path, file: f, buf: bufio.NewWriterSize(f, frameSize)}
	head := binary.LittleEndian.AppendUint32([]byte(metaMagic), uint32(len(b)))
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(b, crcTable))
	if _, err := k.buf.Write(append(head, b...)); err != nil {
		return nil, errors.Join(fmt.Errorf("create snapshot: %w", err), k.Cancel())
	}
	return k, nil
}

// snapshotSink is a snapshot that is being written.
type snapshotSink struct {
	store *snapshots
	id    string
	path  string
	file  *os.File
	buf   *bufio.Writer
	done  bool
}

// ID implements raft.SnapshotSink.
func (k *snapshotSink) ID() string { return k.id }

// Write implements io.Writer.
func (k *snapshotSink) Write(b []byte) (int, error) { return k.buf.Write(b) }

// Close makes the snapshot durable and visible, and deletes the oldest beyond
// the number to retain.
func (k *snapshotSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	tmp := k.path + tmpSuffix
	err := errors.Join(k.buf.Flush(), k.file.Sync(), k.file.Close())
	if err == nil {
		err = os.Rename(tmp, k.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("finish snapshot: %w", err), os.Remove(tmp))
	}
	if err := syncDir(k.store.dir); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	k.store.reap()
	return nil
}

// Cancel implements raft.SnapshotSink.
func (k *snapshotSink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	return errors.Join(k.file.Close(), os.Remove(k.path+tmpSuffix))
}

func (st *snapshots) reap() {
	st.mu.Lock()
	defer st.mu.Unlock()
	names, err := st.names()
	if err != nil {
		st.log.Warn("cannot delete old snapshots", "error", err)
		return
	}
	for _, name := range names[min(st.retain, len(names)):] {
		if err := os.Remove(filepath.Join(st.dir, name)); err != nil {
			st.log.Warn("cannot delete an old snapshot", "error", err)
		}
	}
}
