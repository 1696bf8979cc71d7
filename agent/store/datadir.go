package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Files of a data directory.
const (
	lockFile    = "lock"
	idFile      = "server-id"
	markFile    = "applied"
	walDir      = "wal"
	snapshotDir = "snapshots"
)

// dataDir is a data directory that this process has locked.
type dataDir struct {
	path string
	lock *os.File
	id   string // random server id
}

// openDir creates the directory if it is missing, locks it, and reads or makes
// the server id.
func openDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w; create it for this user, or choose another with FLUID_DATA_DIR", err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.readID(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// lockDir takes the directory's lock, which closing the result releases.
func lockDir(path string) (_ *os.File, err error) {
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w; it must be writable by this user", path, err)
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := os.ReadFile(lock.Name())
			return nil, fmt.Errorf("%w: %s is locked by process %s; stop that agent, or give this one its own directory with RAFT_ID or FLUID_DATA_DIR",
				ErrLocked, path, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("lock data directory %s: %w", path, err)
	}
	if err := writePID(lock); err != nil {
		return nil, fmt.Errorf("data directory %s: %w; it must be writable and have space left", path, err)
	}
	return lock, nil
}

func writePID(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

const resetFix = "restore the file, or wipe the directory with fluid-agent reset and join again"

// readID reads the server id; a directory without one has none yet. An id
// without a log is refused: the server would vote as one that has forgotten
// what it acknowledged.
func (d *dataDir) readID() error {
	path := filepath.Join(d.path, idFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read server id: %w", err)
	}
	if d.id, err = parseServerID(string(b)); err != nil {
		return fmt.Errorf("%w: %s does not hold a server id; %s", ErrCorrupt, path, resetFix)
	}
	if _, err := os.Stat(filepath.Join(d.path, walDir, metaFile)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the log is missing beside %s; %s", ErrCorrupt, path, resetFix)
	}
	return nil
}

// makeID gives a directory without state a server id. fresh tells whether the
// log beside it was never used: a used one must not get a new id, or the server
// would forget what it has acknowledged.
func (d *dataDir) makeID(fresh bool) error {
	if d.id != "" {
		return nil
	}
	path := filepath.Join(d.path, idFile)
	if !fresh {
		return fmt.Errorf("%w: %s is missing beside a log; %s", ErrCorrupt, path, resetFix)
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	d.id = hex.EncodeToString(raw[:])
	if err := writeDurably(path, []byte(formatServerID(d.id))); err != nil {
		return fmt.Errorf("write server id: %w", err)
	}
	return nil
}

// close releases the lock.
func (d *dataDir) close() {
	_ = d.lock.Close()
}

// writeDurably replaces a file so that a crash leaves the old or the new one.
func writeDurably(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadServerID returns the server id of a data directory without locking it.
// The error is fs.ErrNotExist for a directory that never held a server.
func ReadServerID(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, idFile))
	if err != nil {
		return "", err
	}
	return parseServerID(string(b))
}

// formatServerID returns the content of the id file: the id and its checksum.
// A flipped bit must not make another server of this one.
func formatServerID(id string) string {
	return fmt.Sprintf("%s %08x\n", id, crc32.Checksum([]byte(id), crcTable))
}

func parseServerID(s string) (string, error) {
	id, _, _ := strings.Cut(s, " ")
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 || s != formatServerID(id) {
		return "", fmt.Errorf("%w: the server id has another checksum", ErrCorrupt)
	}
	return id, nil
}
