package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Reset removes what a Store keeps in a data directory: the server's identity,
// its log and its snapshots. Other files stay. It returns ErrLocked while an
// agent uses the directory, and an error that wraps fs.ErrNotExist for a
// directory that never held a Store.
func Reset(dir string) error {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not a data directory: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("data directory %s: %w", dir, err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: stop the agent that uses %s first", ErrLocked, dir)
	}
	// The id goes last: a directory with a log and no id is refused by Open,
	// one with an id and no log is a server that never joined.
	for _, name := range []string{walDir, snapshotDir, markFile, idFile} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("wipe data directory: %w", err)
		}
	}
	return syncDir(dir)
}
