package raftnet_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/raftnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait.
const patience = 20 * time.Second

// book is what the servers of a test know of each other.
type book struct {
	mu      sync.Mutex
	remotes map[raft.ServerID]raftnet.Remote
}

func (b *book) set(id string, r raftnet.Remote) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.remotes == nil {
		b.remotes = map[raft.ServerID]raftnet.Remote{}
	}
	b.remotes[raft.ServerID(id)] = r
}

func (b *book) resolve(id raft.ServerID) (raftnet.Remote, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.remotes[id]
	return r, ok
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start opens a layer that is closed with the test and is in the book.
func start(t *testing.T, b *book, cfg raftnet.Config) *raftnet.Layer {
	t.Helper()
	if cfg.Listener == nil {
		cfg.Listener = listen(t, "127.0.0.1:0")
	}
	if cfg.Cluster == nil {
		cfg.Cluster = func() string { return "cluster-1" }
	}
	cfg.Resolve = b.resolve
	cfg.Log = slog.New(slog.DiscardHandler)
	l, err := raftnet.New(cfg)
	if err != nil {
		cfg.Listener.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b.set(cfg.Self.ID, raftnet.Remote{Addr: l.Addr().String(), Name: cfg.Self.Name})
	return l
}

// dial goes the way that Raft's transport does.
func dial(l *raftnet.Layer, id string) (net.Conn, error) {
	addr, err := l.ServerAddr(raft.ServerID(id))
	if err != nil {
		return nil, err
	}
	return l.Dial(addr, patience)
}

// echo sends back what the connections of l send.
func echo(t *testing.T, l *raftnet.Layer) *atomic.Uint64 {
	var seen atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			seen.Add(1)
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return &seen
}

func talk(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	var b [5]byte
	_, err := io.ReadFull(c, b[:])
	return err
}

// authority issues certificates of a CA of its own.
type authority struct{ ca *pki.CA }

func newAuthority(t *testing.T) authority {
	t.Helper()
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority{ca}
}

func (a authority) reloader(t *testing.T, id pki.Identity) *pki.Reloader {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := a.ca.Issue(pki.Request{Identity: id}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, _, err := a.ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	files := pki.Files{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "c.key"), CA: filepath.Join(dir, "ca.pem")}
	for path, data := range map[string][]byte{files.Cert: cert, files.Key: key, files.CA: ca} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := pki.NewReloader(files, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAddressed(t *testing.T) {
	auth := newAuthority(t)
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "tls"}[secure], func(t *testing.T) {
			tlsFor := func(id pki.Identity) *pki.Reloader {
				if !secure {
					return nil
				}
				return auth.reloader(t, id)
			}
			b := &book{}
			one, two := pki.Identity{ID: "id-1", Name: "node1"}, pki.Identity{ID: "id-2", Name: "node2"}
			a := start(t, b, raftnet.Config{Self: one, TLS: tlsFor(pki.Identity{ID: "id-1"})})
			target := start(t, b, raftnet.Config{Self: two, TLS: tlsFor(pki.Identity{Name: "node2"})})
			seen := echo(t, target)
			c, err := dial(a, "id-2")
			if err != nil {
				t.Fatal(err)
			}
			if err := talk(c); err != nil {
				t.Errorf("no echo: %v", err)
			}
			if err := a.Probe(t.Context(), target.Addr().String(), two); err != nil {
				t.Errorf("probe: %v", err)
			}
			self := echo(t, a)
			if c, err := dial(a, "id-1"); err != nil || talk(c) != nil {
				t.Errorf("a server cannot connect to itself: %v", err)
			}

			eventually(t, "the connection and the probe are accepted", func() bool { return seen.Load() == 2 })
			// The book is wrong: at this address listens another server.
			b.set("id-3", raftnet.Remote{Addr: target.Addr().String(), Name: "node2"})
			if _, err := dial(a, "id-3"); !errors.Is(err, raftnet.ErrOtherServer) || !strings.Contains(err.Error(), "id-2") {
				t.Errorf("dial of another server = %v, want ErrOtherServer naming id-2", err)
			}
			if _, err := dial(a, "id-4"); !errors.Is(err, raftnet.ErrUnknownServer) {
				t.Errorf("dial of an unknown server = %v, want ErrUnknownServer", err)
			}
			if _, err := a.Dial(raft.ServerAddress(target.Addr().String()), patience); !errors.Is(err, raftnet.ErrUnknownServer) {
				t.Errorf("dial of a bare address = %v, want ErrUnknownServer", err)
			}
			foreign := start(t, b, raftnet.Config{
				Self: pki.Identity{ID: "id-5", Name: "node5"}, TLS: tlsFor(pki.Identity{ID: "id-5"}),
				Cluster: func() string { return "cluster-2" },
			})
			if _, err := dial(foreign, "id-2"); !errors.Is(err, raftnet.ErrOtherCluster) || !strings.Contains(err.Error(), "cluster-1") || !strings.Contains(err.Error(), "cluster-2") {
				t.Errorf("dial from another cluster = %v, want ErrOtherCluster naming both", err)
			}
			if got := seen.Load(); got != 2 {
				t.Errorf("Accept returned %d connections that were not for this server", got-2)
			}
			eventually(t, "2 connections are counted as refused", func() bool { return target.Stats().Refused == 2 })

			fresh := start(t, b, raftnet.Config{
				Self: pki.Identity{ID: "id-6", Name: "node6"}, TLS: tlsFor(pki.Identity{Name: "node6"}),
				Cluster: func() string { return "" },
			})
			echo(t, fresh)
			if c, err := dial(a, "id-6"); err != nil || talk(c) != nil {
				t.Errorf("a server without a cluster is not reached: %v", err)
			}
			if c, err := dial(fresh, "id-1"); err != nil || talk(c) != nil || self.Load() == 0 {
				t.Errorf("a server without a cluster is refused: %v", err)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	auth, other := newAuthority(t), newAuthority(t)
	b := &book{}
	target := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-1", Name: "node1"}, TLS: auth.reloader(t, pki.Identity{ID: "id-1"})})
	seen := echo(t, target)

	stranger := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-2", Name: "node2"}, TLS: other.reloader(t, pki.Identity{ID: "id-2"})})
	if _, err := dial(stranger, "id-1"); err == nil {
		t.Error("a server with a certificate of another authority connects")
	}
	plain := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-3"}})
	if _, err := dial(plain, "id-1"); err == nil {
		t.Error("a server without TLS connects")
	}
	if _, err := dial(target, "id-3"); err == nil {
		t.Error("a server connects to one without TLS")
	}
	good := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-4", Name: "node4"}, TLS: auth.reloader(t, pki.Identity{Name: "node4"})})
	b.set("id-1", raftnet.Remote{Addr: good.Addr().String(), Name: "node1"})
	echo(t, good)
	if _, err := dial(target, "id-4"); err != nil {
		t.Errorf("dial of id-4: %v", err)
	}
	b.set("id-4", raftnet.Remote{Addr: target.Addr().String(), Name: "node4"})
	if _, err := dial(stranger, "id-4"); err == nil {
		t.Error("a stranger connects")
	}
	if err := good.Probe(t.Context(), target.Addr().String(), pki.Identity{ID: "id-9", Name: "node9"}); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("probe = %v, want ErrIdentity", err)
	}
	if got := seen.Load(); got != 0 {
		t.Errorf("Accept returned %d connections", got)
	}

	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	_, err := raftnet.New(raftnet.Config{Listener: l, Self: pki.Identity{ID: "id-5", Name: "node5"}, TLS: auth.reloader(t, pki.Identity{ID: "id-6"})})
	if !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("New with the certificate of another = %v, want ErrIdentity", err)
	}
	_, err = raftnet.New(raftnet.Config{Listener: l, Advertise: "0.0.0.0:1", Self: pki.Identity{ID: "id-5"}})
	if err == nil || !strings.Contains(err.Error(), "RAFT_ADVERTISE") {
		t.Errorf("New advertising 0.0.0.0 = %v, want a hint at RAFT_ADVERTISE", err)
	}
}

// A dialer that holds a good certificate cannot speak as another server.
func TestClaimIsProven(t *testing.T) {
	auth := newAuthority(t)
	b := &book{}
	target := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-1"}, TLS: auth.reloader(t, pki.Identity{ID: "id-1"})})
	seen := echo(t, target)
	mine := auth.reloader(t, pki.Identity{ID: "id-2"})
	liar := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-2"}, TLS: mine})
	liar.SetSelf(pki.Identity{ID: "id-3"})
	if _, err := dial(liar, "id-1"); !errors.Is(err, raftnet.ErrRefused) {
		t.Errorf("dial = %v, want ErrRefused", err)
	}
	if got := seen.Load(); got != 0 {
		t.Errorf("Accept returned %d connections", got)
	}
}

// Close ends what it cannot wait for: connections in use, in their handshake,
// and being dialed.
func TestCloseEndsEverything(t *testing.T) {
	b := &book{}
	a := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-1"}})
	target := start(t, b, raftnet.Config{Self: pki.Identity{ID: "id-2"}})
	echo(t, target)
	c, err := dial(a, "id-2")
	if err != nil {
		t.Fatal(err)
	}
	idle, err := net.Dial("tcp", a.Addr().String()) // says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	mute := listen(t, "127.0.0.1:0") // never answers
	defer mute.Close()
	b.set("id-3", raftnet.Remote{Addr: mute.Addr().String()})
	dialed := make(chan error, 1)
	go func() {
		_, err := dial(a, "id-3")
		dialed <- err
	}()
	for a.Stats().Open < 3 {
		if t.Context().Err() != nil {
			t.Fatal("not all connections are there")
		}
	}
	if err := a.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	for name, c := range map[string]net.Conn{"in use": c, "in handshake": idle} {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %s is still open: %v", name, err)
		}
	}
	select {
	case err := <-dialed:
		if err == nil {
			t.Error("dial succeeded")
		}
	case <-time.After(patience):
		t.Error("dial goes on")
	}
	if _, err := a.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept = %v, want net.ErrClosed", err)
	}
	if _, err := dial(a, "id-2"); err == nil {
		t.Error("a closed layer dials")
	}
	if err := a.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if got := a.Stats(); got.Open != 0 || got.Pending != 0 {
		t.Errorf("stats after close = %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := target.Probe(ctx, mute.Addr().String(), pki.Identity{ID: "id-3"}); !errors.Is(err, context.Canceled) {
		t.Errorf("probe = %v, want context.Canceled", err)
	}
}
