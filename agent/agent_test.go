package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
	"github.com/fluid-sd/fluid/plugin/feed"
	"github.com/fluid-sd/fluid/plugin/record"
)

// memberlist does not wait for the probe of a member in flight when it is shut
// down; the probe ends by itself within a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// testConfig returns the configuration of an agent with everything of its own.
func testConfig(t *testing.T) agent.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "fluid") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := agent.Default()
	cfg.Node, cfg.DataDir, cfg.Socket = "node1", filepath.Join(dir, "data"), filepath.Join(dir, "agent.sock")
	cfg.HTTPBind, cfg.Raft.Bind = "127.0.0.1:0", "127.0.0.1:0"
	return cfg
}

func start(t *testing.T, cfg agent.Config) *agent.Agent {
	t.Helper()
	a, err := agent.Start(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a) })
	return a
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func stop(t *testing.T, a *agent.Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// client returns a client of a that leaves no connection behind.
func client(t *testing.T, a *agent.Agent, token string) *api.Client {
	t.Helper()
	c, err := api.NewClient(a.HTTP(), token, &http.Client{Transport: &http.Transport{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

func leading(t *testing.T, c *api.Client) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		h, err := c.Ready(t.Context())
		return err == nil && h.Status == "ready" && !strings.HasPrefix(h.Checks["leader"], "none")
	})
}

func register(t *testing.T, c *api.Client, service, ip string) api.Registered {
	t.Helper()
	r, err := c.Register(t.Context(), []api.App{{AppID: service, Target: api.Target{IP: ip}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r[0]
}

func TestRestart(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	done := register(t, c, "checkout", "10.0.0.9")
	before, err := c.Raft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop(t, a)
	stop(t, a) // again does nothing
	if _, err := os.Stat(cfg.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}

	c = client(t, start(t, cfg), "")
	s, err := c.Service(t.Context(), "checkout", api.Filter{}) // before there is a leader
	if err != nil || len(s.Instances) != 1 || s.Index != done.Index {
		t.Fatalf("after the restart: %+v, %v", s, err)
	}
	leading(t, c)
	after, err := c.Raft(t.Context())
	if err != nil || after.ClusterID != before.ClusterID || after.Leader.ID != before.Leader.ID || after.AppliedIndex < before.AppliedIndex {
		t.Errorf("after the restart: %+v, %v; before: %+v", after, err, before)
	}
}

// A client that was told 201 finds its instance at once.
func TestReadYourWrites(t *testing.T) {
	c := client(t, start(t, testConfig(t)), "")
	leading(t, c)
	for i := range 50 {
		id := register(t, c, "web", fmt.Sprintf("10.0.0.%d", i+1)).ID
		s, err := c.Service(t.Context(), "web", api.Filter{})
		if err != nil || len(s.Instances) != i+1 {
			t.Fatalf("after %s: %d instances, %v", id, len(s.Instances), err)
		}
	}
}

// sink is the DNS server's end of the feed.
type sink struct {
	mu      sync.Mutex // guards what follows
	pos     record.Position
	entries map[record.Key]string
}

func (s *sink) Hello() feed.Hello {
	s.mu.Lock()
	defer s.mu.Unlock()
	return feed.Hello{Position: s.pos}
}

func (s *sink) Snapshot(pos record.Position, entries iter.Seq[record.Entry], _ uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pos, s.entries = pos, map[record.Key]string{}
	for e := range entries {
		s.entries[e.Key] = e.Value
	}
	return nil
}

func (s *sink) Apply(_, pos record.Position, entries []record.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pos = pos
	for _, e := range entries {
		if delete(s.entries, e.Key); !e.Deleted {
			s.entries[e.Key] = e.Value
		}
	}
	return nil
}

func (s *sink) Heartbeat(feed.Heartbeat) {}
func (s *sink) Relay([]byte) error       { return nil }
func (s *sink) State(bool, error)        {}

func (s *sink) has(key record.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.entries[key]
	return ok
}

// What is registered over HTTP arrives at the DNS server, and what it has
// applied is known.
func TestFeed(t *testing.T) {
	a := start(t, testConfig(t))
	c := client(t, a, "")
	leading(t, c)
	register(t, c, "checkout", "10.0.0.9")

	dns := &sink{}
	fc, err := feed.NewClient(feed.ClientConfig{Socket: a.Socket(), MemberID: "dns-1"}, dns)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = fc.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })

	eventually(t, "the snapshot", func() bool { return dns.has(record.InstanceKey("checkout", "10.0.0.9")) })
	register(t, c, "web", "10.0.0.1")
	eventually(t, "the new instance", func() bool { return dns.has(record.InstanceKey("web", "10.0.0.1")) })
	if _, err := c.DeregisterInstance(t.Context(), "checkout", "10.0.0.9", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removal", func() bool { return !dns.has(record.InstanceKey("checkout", "10.0.0.9")) })
	eventually(t, "one DNS server", func() bool {
		h, err := c.Ready(t.Context())
		return err == nil && h.Checks["dns"] == "1 connected"
	})
}

func TestStartRefuses(t *testing.T) {
	taken := testConfig(t)
	running := start(t, taken)
	leading(t, client(t, running, ""))
	for _, tc := range []struct {
		name string
		edit func(*agent.Config)
		want error // wrapped; nil: a *ConfigError for key
		key  string
		text string
	}{
		{"same data directory", func(c *agent.Config) { c.DataDir = taken.DataDir }, store.ErrLocked, "", "locked by process"},
		{"same socket", func(c *agent.Config) { c.Socket = taken.Socket }, feed.ErrInUse, "", taken.Socket},
		{"same HTTP address", func(c *agent.Config) { c.HTTPBind = strings.TrimPrefix(running.HTTP(), "http://") }, nil, "http_bind", "in use"},
		{"not an address of this host", func(c *agent.Config) { c.Raft.Bind, c.Insecure = "192.0.2.1:0", true }, nil, "", "raft_bind"},
		{"no certificate", func(c *agent.Config) { c.TLSCertFile, c.TLSKeyFile = "/nonexistent.crt", "/nonexistent.key" }, nil, "tls_cert_file", "nonexistent"},
		{"data directory is a file", func(c *agent.Config) { c.DataDir = write(t, "file", "x") }, nil, "", "data directory"},
		{"socket path too long", func(c *agent.Config) { c.Socket = "/tmp/" + strings.Repeat("x", 120) }, nil, "", "FLUID_SOCKET"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(t)
			tc.edit(&cfg)
			a, err := agent.Start(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				stop(t, a)
				t.Fatal("started")
			}
			var ce *agent.ConfigError
			if tc.key != "" && (!errors.As(err, &ce) || ce.Key != tc.key) {
				t.Errorf("got %v, want an error on %s", err, tc.key)
			}
			if tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %q in it", err, tc.text)
			}
		})
	}
}

// An agent that is part of no cluster says so and answers nothing.
func TestNoCluster(t *testing.T) {
	cfg, no := testConfig(t), false
	cfg.Raft.Bootstrap = &no
	c := client(t, start(t, cfg), "")
	if h, err := c.Ready(t.Context()); err != nil || h.Status != "not ready" || !strings.Contains(strings.Join(h.Reasons, ";"), "RAFT_BOOTSTRAP=true") {
		t.Errorf("got %+v, %v", h, err)
	}
	if _, err := c.Services(t.Context(), api.Filter{}); !errors.Is(err, api.ErrUnsynced) {
		t.Errorf("services: got %v", err)
	}
	if _, err := c.Deregister(t.Context(), "web", nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("write: got %v", err)
	}
}

// The token guards the TCP address, the permissions of the socket the socket.
func TestAdminSocket(t *testing.T) {
	cfg := testConfig(t)
	cfg.Token = "s3cret"
	a := start(t, cfg)
	admin, err := api.NewClient("unix:"+a.Admin(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	leading(t, admin)
	if _, err := admin.Services(t.Context(), api.Filter{}); err != nil {
		t.Errorf("socket: %v", err)
	}
	if _, err := client(t, a, "").Services(t.Context(), api.Filter{}); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("no token: %v", err)
	}
	if _, err := client(t, a, "s3cret").Services(t.Context(), api.Filter{}); err != nil {
		t.Errorf("token: %v", err)
	}
	info, err := os.Stat(a.Admin())
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the socket is open to others: %v, %v", info.Mode(), err)
	}
}

func TestMetrics(t *testing.T) {
	a := start(t, testConfig(t))
	leading(t, client(t, a, ""))
	hc := &http.Client{Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.HTTP()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b strings.Builder
	if _, err := io.Copy(&b, resp.Body); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fluid_is_leader 1", "fluid_build_info{", "fluid_applied_index ", "go_goroutines", "raft_"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestReset(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	register(t, c, "web", "10.0.0.1")
	if _, err := c.PutInstance(t.Context(), "batch", api.Target{IP: "10.0.0.2"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := agent.Reset(cfg.DataDir); !errors.Is(err, store.ErrLocked) {
		t.Errorf("while running: got %v", err)
	}
	stop(t, a)
	for _, name := range []string{"checks.json", "raft-role"} {
		if err := os.WriteFile(filepath.Join(cfg.DataDir, name), []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := agent.Reset(cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(cfg.DataDir)
	for _, e := range left {
		if e.Name() != "lock" && e.Name() != "audit.log" {
			t.Errorf("reset left %s", e.Name())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	c = client(t, start(t, cfg), "")
	leading(t, c)
	if list, err := c.Services(t.Context(), api.Filter{}); err != nil || len(list) != 0 {
		t.Errorf("after reset: %+v, %v", list, err)
	}
	var ce *agent.ConfigError
	if err := agent.Reset(t.TempDir()); !errors.As(err, &ce) {
		t.Errorf("a directory of something else: got %v", err)
	}
}

// A stuck client does not keep the agent from stopping in time.
func TestStopIsBounded(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(a.HTTP(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("POST /v1/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	stop(t, a)
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("stopping took %s", took)
	}
}
