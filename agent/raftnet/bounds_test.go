package raftnet_test

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/agent/pki"
	"github.com/fluid-sd/fluid/agent/raftnet"
)

// pipes is a listener of in-memory connections, for fake time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return tcpAddr("192.0.2.1:11000") }

// connect returns the client's end of a connection that comes from addr.
func (p *pipes) connect(from string) net.Conn {
	client, server := net.Pipe()
	p.conns <- &comesFrom{server, tcpAddr(from)}
	return client
}

type comesFrom struct {
	net.Conn
	addr net.Addr
}

func (f *comesFrom) RemoteAddr() net.Addr { return f.addr }

type tcpAddr string

func (tcpAddr) Network() string  { return "tcp" }
func (a tcpAddr) String() string { return string(a) }

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bubble opens a layer on pipes, inside a synctest bubble.
func bubble(t *testing.T, tls *pki.Reloader) (*raftnet.Layer, *pipes, *logBuffer) {
	t.Helper()
	p, log := newPipes(), &logBuffer{}
	l, err := raftnet.New(raftnet.Config{
		Listener: p, Self: pki.Identity{ID: "id-1", Name: "node1"}, Cluster: func() string { return "" },
		Resolve: (&book{}).resolve, TLS: tls, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, p, log
}

// Who says nothing, or says it slowly, is closed after the handshake timeout.
func TestSilentPeers(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tls *pki.Reloader
				if secure { // made here: the bubble's clock is in the year 2000
					ca, err := pki.NewCA(time.Now())
					if err != nil {
						t.Fatal(err)
					}
					tls = authority{ca}.reloader(t, pki.Identity{ID: "id-1"})
				}
				l, p, _ := bubble(t, tls)
				silent, slow := p.connect("10.0.0.1:1"), p.connect("10.0.0.2:1")
				var clients sync.WaitGroup
				clients.Go(func() {
					for _, c := range []byte("FLUIDR\x01\x01\x00" + strings.Repeat("\x00", 256)) {
						<-time.After(100 * time.Millisecond) // of the bubble
						if _, err := slow.Write([]byte{c}); err != nil {
							return
						}
					}
				})
				clients.Go(func() { _, _ = io.Copy(io.Discard, slow) })
				synctest.Wait()
				if got := l.Stats().Pending; got != 2 {
					t.Errorf("%d pending, want 2", got)
				}
				began := time.Now()
				if _, err := silent.Read(make([]byte, 1)); err == nil {
					t.Error("the listener speaks first")
				}
				<-time.After(time.Millisecond)
				synctest.Wait()
				if got := time.Since(began); got > raftnet.HandshakeTimeout+time.Second {
					t.Errorf("closed after %s, want %s", got, raftnet.HandshakeTimeout)
				}
				if got := l.Stats(); got.Pending != 0 || got.Open != 0 || got.Refused != 2 {
					t.Errorf("stats = %+v, want nothing pending, 2 refused", got)
				}
				clients.Wait()
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Strangers cannot take more than their host's share of the handshakes, nor
// fill the log.
func TestPendingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p, log := bubble(t, nil)
		var all []net.Conn
		for i := range raftnet.MaxPendingPerIP + 10 {
			all = append(all, p.connect(fmt.Sprintf("10.0.0.1:%d", i+1)))
		}
		synctest.Wait()
		if got := l.Stats(); got.Pending != raftnet.MaxPendingPerIP || got.Refused != 10 {
			t.Errorf("one host: %+v, want %d pending and 10 refused", got, raftnet.MaxPendingPerIP)
		}
		for i := range raftnet.MaxPending {
			all = append(all, p.connect(fmt.Sprintf("10.0.1.%d:1", i)))
		}
		synctest.Wait()
		if got := l.Stats().Pending; got != raftnet.MaxPending {
			t.Errorf("%d hosts: %d pending, want %d", raftnet.MaxPending, got, raftnet.MaxPending)
		}
		if got := strings.Count(log.String(), "\n"); got != 1 {
			t.Errorf("%d log lines within a second, want 1:\n%s", got, log)
		}
		for _, c := range all {
			c.Close()
		}
		synctest.Wait()
		if got := l.Stats(); got.Pending != 0 || got.Open != 0 {
			t.Errorf("after all have gone: %+v", got)
		}
		<-time.After(time.Second) // of the bubble
		c := p.connect("10.0.0.1:1")
		c.Close()
		synctest.Wait()
		if !strings.Contains(log.String(), "more=") {
			t.Errorf("log does not say how much it left out:\n%s", log)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A listener that fails for a while, as with too many open files, goes on.
func TestAcceptGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		failing := &failingListener{pipes: p, left: 5}
		l, err := raftnet.New(raftnet.Config{
			Listener: failing, Self: pki.Identity{ID: "id-1"}, Cluster: func() string { return "" },
			Resolve: (&book{}).resolve, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		c := p.connect("10.0.0.1:1")
		synctest.Wait()
		if got := l.Stats().Pending; got != 1 {
			t.Errorf("%d pending, want 1", got)
		}
		c.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

type failingListener struct {
	*pipes
	left int
}

func (f *failingListener) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, fmt.Errorf("accept: too many open files")
	}
	return f.pipes.Accept()
}
