package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Reset deletes the state in a data directory, so that the next start begins
// as a new one. It is for a server or client whose state is damaged or of another
// cluster; what only it had is lost. It returns an error that wraps
// ErrLocked if an agent uses the directory, and fs.ErrNotExist if it holds no
// state. Files it does not know are left alone.
func Reset(dir string) error {
	if !slices.ContainsFunc([]string{idFile, walDir, clientFile}, func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}) {
		return fmt.Errorf("reset %s: %w", dir, fs.ErrNotExist)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	var errs []error
	// The id goes last: without it a directory with a log is refused.
	for _, name := range []string{clientLast, clientFile, walDir, snapshotDir, markFile, idFile} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	errs = append(errs, syncDir(dir), lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	return nil
}
