package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 64 << 10

// ErrKeyFileMode is returned when others than the owner and the group of a key
// file may read it.
var ErrKeyFileMode = errors.New("key file can be read by everybody")

// ReadKeyFiles reads hexadecimal keys from files, in order, one key a line;
// empty lines and lines that begin with # are skipped. The first key of the
// first file encrypts. Errors name file and line, never a key.
func ReadKeyFiles(paths ...string) ([]Key, error) {
	var keys []Key
	for _, path := range paths {
		more, err := readKeyFile(path)
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		keys = append(keys, more...)
	}
	if len(keys) == 0 {
		return nil, ErrNoKeys
	}
	return keys, nil
}

func readKeyFile(path string) ([]Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The open file is asked, not the path, so that it cannot be exchanged
	// between the check and the read.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o: run 'chmod 0600 %s'", ErrKeyFileMode, path, mode, path)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s has %d bytes, a key file has at most %d", path, info.Size(), maxKeyFile)
	}
	return parseKeyFile(path, io.LimitReader(f, maxKeyFile))
}

func parseKeyFile(name string, r io.Reader) ([]Key, error) {
	var keys []Key
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		s := strings.TrimSpace(sc.Text())
		if s == "" || strings.HasPrefix(s, "#") {
			continue
		}
		k, err := ParseKey(s)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		keys = append(keys, k)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return keys, nil
}
