//go:build unix

package feed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxSocketPath = 107 // bytes that sun_path holds besides the final zero
	probeTimeout  = time.Second
)

// Listen serves path as a unix socket with mode 0660, in a directory that it
// makes with mode 0750 if it does not exist. A lock file beside the socket,
// path + ".lock", keeps a second process out; a socket that a dead process
// left is removed. gid, if not negative, becomes the group of the socket and
// of a directory that Listen makes.
//
// The error wraps ErrInUse if another process serves the path. Closing the
// listener removes the socket and gives up the lock.
func Listen(path string, gid int) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("feed socket %s: the path is %d bytes long; set FLUID_SOCKET to one of at most %d", path, len(path), maxSocketPath)
	}
	if err := makeDir(filepath.Dir(path), gid); err != nil {
		return nil, fmt.Errorf("feed socket %s: directory: %w; create it for this user or set FLUID_SOCKET to another path", path, err)
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	l, err := listenLocked(path, gid)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &socket{UnixListener: l, lock: lock}, nil
}

func makeDir(dir string, gid int) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o750); err != nil { // the group must enter
		return err
	}
	return os.Chown(dir, -1, gid)
}

// lockFile takes the lock beside the socket. The file stays when the lock is
// given up: removing it would let two processes lock two files of one name.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("feed socket %s: lock: %w; run as the owner of the directory or set FLUID_SOCKET to another path", path, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
		}
	}
	if err == nil {
		return f, nil
	}
	defer func() { _ = f.Close() }()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("feed socket %s: lock: %w", path, err)
	}
	pid := make([]byte, 20)
	n, _ := f.ReadAt(pid, 0)
	return nil, inUse(path, "process "+printable(strings.TrimSpace(string(pid[:n]))))
}

func inUse(path, who string) error {
	return fmt.Errorf("%w: %s is served by %s; stop it or set FLUID_SOCKET to another path", ErrInUse, path, who)
}

// listenLocked removes a stale socket and listens. Nobody else that goes by
// the lock does so at the same time.
func listenLocked(path string, gid int) (*net.UnixListener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("feed socket: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("feed socket %s: a file that is no socket is in the way; remove it or set FLUID_SOCKET to another path", path)
	default:
		if err := removeStale(path, info); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("feed socket %s: %w", path, err)
	}
	// The mode is set after the bind, so for a moment the umask rules; the
	// directory and the check of peers hold meanwhile.
	if err := errors.Join(os.Chmod(path, 0o660), os.Chown(path, -1, gid)); err != nil { // the group may connect
		_ = l.Close()
		return nil, fmt.Errorf("feed socket %s: permissions: %w", path, err)
	}
	return l, nil
}

// removeStale removes a socket on which nobody answers.
func removeStale(path string, info fs.FileInfo) error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return inUse(path, "another process")
	case errors.Is(err, unix.ECONNREFUSED):
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("feed socket %s: it belongs to %s; run as that user or set FLUID_SOCKET to another path", path, ownerOf(info))
	default:
		// A full backlog or a timeout: somebody holds it.
		return inUse(path, "another process ("+err.Error()+")")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("feed socket %s: a stale socket of %s cannot be removed: %w; remove it or set FLUID_SOCKET to another path", path, ownerOf(info), err)
	}
	return nil
}

func ownerOf(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("uid %d gid %d", st.Uid, st.Gid)
	}
	return "another user"
}

// groupOf returns the group of a file.
func groupOf(info fs.FileInfo) (gid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Gid, true
}

// socket gives up the lock after the socket is gone.
type socket struct {
	*net.UnixListener
	once sync.Once
	lock *os.File
	err  error
}

// Close removes the socket and gives up the lock. It may be called again.
func (s *socket) Close() error {
	s.once.Do(func() { s.err = errors.Join(s.UnixListener.Close(), s.lock.Close()) })
	return s.err
}
