//go:build unix

package feed

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shortDir returns a new directory whose path leaves room for a socket name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "feed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestListenModes(t *testing.T) {
	path := filepath.Join(shortDir(t), "run", "agent.sock")
	defer syscall.Umask(syscall.Umask(0o077))
	l := listen(t, path)
	for name, want := range map[string]fs.FileMode{
		path:               fs.ModeSocket | 0o660,
		path + ".lock":     0o600,
		filepath.Dir(path): fs.ModeDir | 0o750,
	} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode(); got != want {
			t.Errorf("mode of %s: got %v, want %v", name, got, want)
		}
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket after close: got %v, want it gone", err)
	}
	_ = listen(t, path).Close()
}

func TestListenRefuses(t *testing.T) {
	tests := []struct {
		name  string
		setup func(t *testing.T, path string)
		inUse bool
		want  string
	}{
		{"second agent", func(t *testing.T, path string) {
			l := listen(t, path)
			t.Cleanup(func() { _ = l.Close() })
		}, true, "FLUID_SOCKET"},
		{"server without a lock", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}, true, "another process"},
		{"file in the way", func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false, "no socket"},
		{"directory is a file", func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(filepath.Dir(path)), os.WriteFile(filepath.Dir(path), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, false, "FLUID_SOCKET"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "agent.sock")
			tt.setup(t, path)
			l, err := Listen(path, -1)
			if err == nil {
				_ = l.Close()
				t.Fatal("got no error")
			}
			if errors.Is(err, ErrInUse) != tt.inUse || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want one with %q and the path, ErrInUse %v", err, tt.want, tt.inUse)
			}
		})
	}
	if _, err := Listen("/"+strings.Repeat("x", 200), -1); err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("long path: got %v, want the limit", err)
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "agent.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false) // as kill -9 leaves it
	_ = old.Close()
	l := listen(t, path)
	defer func() { _ = l.Close() }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestPeersCheck(t *testing.T) {
	me := uint32(os.Geteuid())
	tests := []struct {
		name  string
		peers Peers
		cred  peerCred
		ok    bool
	}{
		{"root", Peers{}, peerCred{}, true},
		{"own user", Peers{}, peerCred{uid: me, gid: 99}, true},
		{"other user", Peers{}, peerCred{uid: me + 7, gid: 7}, false},
		{"listed user", Peers{UIDs: []uint32{me + 7}}, peerCred{uid: me + 7}, true},
		{"listed primary group", Peers{GIDs: []uint32{7}}, peerCred{uid: me + 7, gid: 7}, true},
		{"listed supplementary group", Peers{GIDs: []uint32{8}}, peerCred{uid: me + 7, gid: 7, groups: []uint32{5, 8}}, true},
		{"group of the socket", Peers{}, peerCred{uid: me + 7, gid: 7, groups: []uint32{42}}, true},
		{"other group", Peers{GIDs: []uint32{9}}, peerCred{uid: me + 7, gid: 7, groups: []uint32{5, 8}}, false},
		{"unknown", Peers{}, peerCred{err: errors.New("x")}, false},
		{"unknown, in a test", Peers{Unchecked: true}, peerCred{err: errors.New("x")}, true},
		{"known, in a test", Peers{Unchecked: true}, peerCred{uid: me + 7}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.peers.check(tt.cred, 42); (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
		})
	}
}

// TestOverUnixSocket runs both ends over the real socket, with the real
// credentials.
func TestOverUnixSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "agent.sock")
	src := newSource()
	src.put("i/a/1", "x")
	srv, err := NewServer(ServerConfig{Source: src, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, path)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	sink := newSink(src)
	c, err := NewClient(ClientConfig{Socket: path, MemberID: "m1"}, sink)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for {
		m, changed := srv.Members()
		if len(m) == 1 && m[0].Applied == src.State().Position() {
			if m[0].UID != uint32(os.Geteuid()) || int(m[0].PID) != os.Getpid() {
				t.Errorf("member: got %+v, want this process", m[0])
			}
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("not applied: %+v", m)
		}
	}
	cancel()
	<-done
	srv.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestDialErrorsSayWhatToDo(t *testing.T) {
	dir := shortDir(t)
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	for path, want := range map[string]string{
		filepath.Join(dir, "none.sock"): "start fluid-agent",
		dead:                            "connection refused",
	} {
		if _, err := dialer(path)(t.Context()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want %q and the path", path, err, want)
		}
	}
}
