package pki

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Modes of files: what is public and what is not.
const (
	PublicMode fs.FileMode = 0o644
	SecretMode fs.FileMode = 0o600
)

// maxFile bounds what is read of a file, in bytes. A bundle of all public
// authorities is a fifth of it.
const maxFile = 1 << 20

// File is a file to write.
type File struct {
	Path string
	Mode fs.FileMode
	Data []byte
}

// NewSecret returns 256 random bits as 64 hex digits and a newline, good for a
// join secret and for an operator token.
func NewSecret() ([]byte, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("make secret: %w", err)
	}
	return append(hex.AppendEncode(nil, b[:]), '\n'), nil
}

// WriteNew writes files that do not exist yet, all or none. Each appears with
// its whole content, synced to disk, or not at all. An error that wraps
// fs.ErrExist names the file that is there already; it is left as it was.
func WriteNew(files ...File) (err error) {
	for _, f := range files {
		if _, err := os.Lstat(f.Path); err == nil {
			return &fs.PathError{Op: "write", Path: f.Path, Err: fs.ErrExist}
		}
	}
	var done []string
	defer func() {
		if err != nil {
			for _, path := range done {
				_ = os.Remove(path) // ours, and half of what was asked for
			}
		}
	}()
	dirs := map[string]bool{}
	for _, f := range files {
		if err := writeNew(f); err != nil {
			return err
		}
		done = append(done, f.Path)
		dirs[filepath.Dir(f.Path)] = true
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// writeNew goes through a temporary file and a hard link, because a link, unlike
// a rename, fails where the name is taken.
func writeNew(f File) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(f.Path), ".fluid-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, os.Remove(tmp.Name()))
	}()
	_, err = tmp.Write(f.Data)
	if err == nil {
		err = tmp.Chmod(f.Mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), f.Path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "write", Path: f.Path, Err: fs.ErrExist}
		}
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: is larger than %d bytes", path, maxFile)
	}
	return data, nil
}
