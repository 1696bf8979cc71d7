package agent

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// freeRun returns the first of a run of ports that are free now, far from
// where the kernel takes its own.
func freeRun(t *testing.T) (first net.Listener, addr string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().String()
}

func TestListen(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	_, taken := freeRun(t)
	l, err := listen(t.Context(), "http_bind", "", taken, "", log)
	if err != nil {
		t.Fatal(err)
	}
	moved := l.Addr().String()
	if moved == taken {
		t.Errorf("two listeners on %s", taken)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	// Where it moved to is where it comes back to, even if the default is free.
	l, err = listen(t.Context(), "http_bind", "", taken, moved, log)
	if err != nil || l.Addr().String() != moved {
		t.Fatalf("got %v, %v, want %s", l, err, moved)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	var ce *ConfigError
	if l, err := listen(t.Context(), "http_bind", taken, DefaultHTTPBind, "", log); !errors.As(err, &ce) {
		t.Errorf("a configured address that is taken: got %v, %v", l, err)
	}
}

func TestListenSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "fluid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(dir, "agent.sock")
	first, err := listenSocket(path, true, "node1", log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	second, err := listenSocket(path, true, "node2", log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	if got, want := second.Addr().String(), filepath.Join(dir, "agent-node2.sock"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if l, err := listenSocket(path, false, "node3", log); err == nil {
		t.Errorf("a configured socket that is taken: %v", l.Addr())
	}
}
