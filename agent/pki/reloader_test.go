package pki_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/agent/pki"
)

const proto = "fluid-raft/1"

// newReloader returns a Reloader, its clock and its log.
func newReloader(t *testing.T, files pki.Files) (*pki.Reloader, *clock, *syncBuffer) {
	t.Helper()
	c, buf := &clock{now: epoch}, &syncBuffer{}
	r, err := pki.NewReloader(files, c.Now, slog.New(slog.NewTextHandler(buf, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return r, c, buf
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// take returns what was written since the last take.
func (s *syncBuffer) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.b.Reset()
	return s.b.String()
}

func named(name string) pki.Request { return pki.Request{Identity: pki.Identity{Name: name}} }

func TestMutualTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	server, _, _ := newReloader(t, write(t, t.TempDir(), ca, pki.Request{Identity: pki.Identity{ID: "id-1"}}, epoch))
	client, _, _ := newReloader(t, write(t, t.TempDir(), ca, named("node2"), epoch))
	stranger, _, _ := newReloader(t, write(t, t.TempDir(), other, named("node2"), epoch))
	files := write(t, t.TempDir(), ca, named("node3"), epoch)
	files.CA = ""
	blind, _, _ := newReloader(t, files)

	tests := map[string]struct {
		server, client *tls.Config
		wantServer     string // "" for success
		wantClient     string
	}{
		"good":                 {server.ServerConfig(proto), client.ClientConfig(pki.Identity{ID: "id-1"}, proto), "", ""},
		"other id":             {server.ServerConfig(proto), client.ClientConfig(pki.Identity{ID: "id-2"}, proto), "bad certificate", "certificate of another agent"},
		"nobody expected":      {server.ServerConfig(proto), client.ClientConfig(pki.Identity{}, proto), "bad certificate", "certificate of another agent"},
		"unknown authority":    {server.ServerConfig(proto), stranger.ClientConfig(pki.Identity{ID: "id-1"}, proto), "bad certificate", "unknown authority"},
		"client cannot verify": {server.ServerConfig(proto), blind.ClientConfig(pki.Identity{ID: "id-1"}, proto), "bad certificate", "no authority is configured"},
		"other protocol":       {server.ServerConfig(proto), client.ClientConfig(pki.Identity{ID: "id-1"}, "h2"), "unsupported application protocols", "no application protocol"},
		"no protocol":          {server.ServerConfig(proto), client.ClientConfig(pki.Identity{ID: "id-1"}), "does not speak", "bad certificate"},
		"no certificate": {
			server.ServerConfig(proto),
			&tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}, "didn't provide a certificate", "certificate required",
		},
		"old TLS": {
			server.ServerConfig(proto),
			&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{proto}}, "unsupported versions", "protocol version",
		},
		"HTTP asks nobody": {blind.ServerConfig("h2"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, c := handshake(t, tt.server, tt.client)
			for _, end := range []struct {
				name string
				err  error
				want string
			}{{"server", s, tt.wantServer}, {"client", c, tt.wantClient}} {
				if end.want == "" && end.err != nil || end.want != "" && (end.err == nil || !strings.Contains(end.err.Error(), end.want)) {
					t.Errorf("%s: %v, want %q", end.name, end.err, end.want)
				}
			}
		})
	}
}

// A client certificate of the right authority that names no agent, such as one
// for people, must not open the door to Raft.
func TestCertificateOfNobody(t *testing.T) {
	ca := newCA(t)
	server, _, _ := newReloader(t, write(t, t.TempDir(), ca, named("node1"), epoch))
	dir := t.TempDir()
	cert, key := issueNobody(t, ca)
	files := write(t, dir, ca, named("x"), epoch)
	put(t, files.Cert, cert)
	put(t, files.Key, key)
	client, _, _ := newReloader(t, files)
	if err := client.Check(pki.Identity{Name: "x"}); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("Check = %v, want ErrIdentity", err)
	}
	s, c := handshake(t, server.ServerConfig(proto), client.ClientConfig(pki.Identity{Name: "node1"}, proto))
	if !errors.Is(s, pki.ErrIdentity) || c == nil {
		t.Errorf("server %v, client %v; want ErrIdentity and a failure", s, c)
	}
}

func TestNewReloaderRefuses(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	otherPEM, _, err := other.PEM()
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := ca.Issue(named("a"), epoch)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		spoil func(pki.Files)
		now   time.Time
		want  string
	}{
		"missing key":       {func(f pki.Files) { os.Remove(f.Key) }, epoch, "no such file"},
		"missing authority": {func(f pki.Files) { os.Remove(f.CA) }, epoch, "no such file"},
		"key of another":    {func(f pki.Files) { put(t, f.Key, otherKey) }, epoch, "private key does not match"},
		"other authority":   {func(f pki.Files) { put(t, f.CA, otherPEM) }, epoch, "is not one of authority"},
		"empty authority":   {func(f pki.Files) { put(t, f.CA, nil) }, epoch, "holds no PEM certificate"},
		"key as authority":  {func(f pki.Files) { put(t, f.CA, otherKey) }, epoch, "holds a PRIVATE KEY"},
		"truncated": {func(f pki.Files) {
			b, _ := os.ReadFile(f.Cert)
			put(t, f.Cert, b[:len(b)/2])
		}, epoch, "certificate"},
		"expired":   {func(pki.Files) {}, epoch.Add(pki.CertValidity + time.Second), "expired"},
		"too early": {func(pki.Files) {}, epoch.Add(-2 * time.Hour), "is not valid before"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := write(t, t.TempDir(), ca, named("a"), epoch)
			tt.spoil(files)
			_, err := pki.NewReloader(files, func() time.Time { return tt.now }, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestReload(t *testing.T) {
	ca := newCA(t)
	dir := t.TempDir()
	files := write(t, dir, ca, named("old"), epoch)
	r, clk, _ := newReloader(t, files)
	client, _, _ := newReloader(t, write(t, t.TempDir(), ca, named("client"), epoch))
	server := r.ServerConfig(proto) // made once, like a listener's
	answers := func(name string) error {
		t.Helper()
		_, err := handshake(t, server, client.ClientConfig(pki.Identity{Name: name}, proto))
		return err
	}
	if changed, err := r.Reload(); changed || err != nil {
		t.Fatalf("reload of the same files = %t, %v", changed, err)
	}
	if err := answers("old"); err != nil {
		t.Fatal(err)
	}

	good, err := os.ReadFile(files.Key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, files.Key, []byte("half a ke"))
	if changed, err := r.Reload(); changed || err == nil || r.Err() == nil {
		t.Errorf("reload of a bad key = %t, %v; want an error", changed, err)
	}
	if err := answers("old"); err != nil {
		t.Errorf("with a bad new key the old one no longer answers: %v", err)
	}
	put(t, files.Key, good)
	if changed, err := r.Reload(); changed || err != nil || r.Err() != nil {
		t.Errorf("reload of the first key = %t, %v, Err %v; want no change and no error", changed, err, r.Err())
	}

	clk.add(30 * time.Minute) // within what other clocks accept
	write(t, dir, ca, named("new"), clk.Now())
	if changed, err := r.Reload(); !changed || err != nil {
		t.Fatalf("reload of new files = %t, %v", changed, err)
	}
	if got, want := r.NotAfter(), clk.Now().Add(pki.CertValidity); !got.Equal(want) {
		t.Errorf("NotAfter = %s, want %s", got, want)
	}
	if err := answers("new"); err != nil {
		t.Errorf("new certificate does not answer: %v", err)
	}
	if err := answers("old"); err == nil {
		t.Error("old certificate still answers")
	}
}

// An authority is replaced without a moment at which nobody trusts anybody:
// first both are trusted everywhere, then the certificates change.
func TestAuthorityRollover(t *testing.T) {
	one, two := newCA(t), newCA(t)
	onePEM, _, _ := one.PEM()
	twoPEM, _, _ := two.PEM()
	both := append(append([]byte{}, onePEM...), twoPEM...)
	dirs := [2]string{t.TempDir(), t.TempDir()}
	var files [2]pki.Files
	var nodes [2]*pki.Reloader
	for i := range dirs {
		files[i] = write(t, dirs[i], one, named("node"), epoch)
		nodes[i], _, _ = newReloader(t, files[i])
	}
	talk := func(step string) {
		t.Helper()
		for i := range nodes {
			s, c := handshake(t, nodes[i].ServerConfig(proto), nodes[1-i].ClientConfig(pki.Identity{Name: "node"}, proto))
			if s != nil || c != nil {
				t.Errorf("%s: %v, %v", step, s, c)
			}
		}
	}
	reload := func(i int) {
		t.Helper()
		if changed, err := nodes[i].Reload(); !changed || err != nil {
			t.Fatalf("reload = %t, %v", changed, err)
		}
	}
	talk("before")
	for i := range nodes {
		put(t, files[i].CA, both)
		reload(i)
		talk("both trusted")
	}
	for i := range nodes {
		write(t, dirs[i], two, named("node"), epoch)
		put(t, files[i].CA, both)
		reload(i)
		talk("certificate replaced")
	}
	for i := range nodes {
		put(t, files[i].CA, twoPEM)
		reload(i)
		talk("old authority gone")
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now() // of the bubble's clock
		ca, err := pki.NewCA(start)
		if err != nil {
			t.Fatal(err)
		}
		files := write(t, dir, ca, named("a"), start)
		buf := &syncBuffer{}
		r, err := pki.NewReloader(files, time.Now, slog.New(slog.NewTextHandler(buf, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx, time.Hour) }()
		pass := func(d time.Duration) string {
			<-time.After(d) // of the bubble: no time passes
			synctest.Wait()
			return buf.take()
		}
		count := func(step, log, what string, want int) {
			t.Helper()
			if got := strings.Count(log, what); got != want {
				t.Errorf("%s: %d times %q in log, want %d:\n%s", step, got, what, want, log)
			}
		}
		log := pass(pki.CertValidity - 30*24*time.Hour - 2*time.Hour)
		count("31 days before", log, "level=", 0)
		count("30 days before", pass(24*time.Hour), "level=WARN", 1)
		count("until 7 days before", pass(21*24*time.Hour), "level=", 0)
		count("7 days before", pass(36*time.Hour), "level=WARN", 1)
		count("until 1 day before", pass(4*24*time.Hour), "level=", 0)
		count("1 day before", pass(48*time.Hour), "level=WARN", 1)
		if left := r.Left(); left > 24*time.Hour || left < 0 {
			t.Errorf("left = %s, want less than a day", left)
		}
		count("expired", pass(24*time.Hour), "has expired", 1)

		put(t, files.Cert, []byte("nonsense"))
		count("bad file", pass(10*time.Hour), "cannot be used", 1)
		write(t, dir, ca, named("a"), time.Now())
		log = pass(2 * time.Hour)
		count("new file", log, "are reloaded", 1)
		count("new file", log, "level=WARN", 0)
		write(t, dir, ca, pki.Request{Identity: pki.Identity{Name: "a"}, Validity: 48 * time.Hour}, time.Now())
		count("short file", pass(2*time.Hour), "level=WARN", 1) // 7 days and 30 days at once
		cancel()
		<-done
	})
}

// While certificates are replaced, every handshake sees old or new ones, never
// a mixture.
func TestReloadDuringHandshakes(t *testing.T) {
	ca := newCA(t)
	dir := t.TempDir()
	r, _, _ := newReloader(t, write(t, dir, ca, named("a"), epoch))
	server := r.ServerConfig(proto)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 20 {
			write(t, dir, ca, named("a"), epoch.Add(time.Duration(i)*time.Second))
			_, _ = r.Reload()
		}
		close(stop)
	})
	for {
		select {
		case <-stop:
			wg.Wait()
			return
		default:
		}
		if s, c := handshake(t, server, r.ClientConfig(pki.Identity{Name: "a"}, proto)); s != nil || c != nil {
			t.Errorf("handshake: %v, %v", s, c)
		}
	}
}

func TestWarnsOfReadableKey(t *testing.T) {
	files := write(t, t.TempDir(), newCA(t), named("a"), epoch)
	if err := os.Chmod(files.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, buf := newReloader(t, files)
	if log := buf.take(); !strings.Contains(log, filepath.Base(files.Key)) {
		t.Errorf("no warning of a readable key: %q", log)
	}
}
