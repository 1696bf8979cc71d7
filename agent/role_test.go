package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/store"
)

// An agent that may choose becomes a client where the cluster wants no further
// server, and remembers.
func TestFullCluster(t *testing.T) {
	a1 := start(t, testConfig(t))
	leading(t, client(t, a1, ""))
	full := fullFront(t, a1.HTTP())
	cfg := testConfig(t)
	cfg.Node, cfg.Raft.JoinURL, cfg.HTTPBind = "node2", full, freeAddr(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- agent.Run(ctx, cfg, discard(), 10*time.Second) }()
		c2, err := api.NewClient("http://"+cfg.HTTPBind, "", &http.Client{Transport: &http.Transport{}})
		if err != nil {
			t.Fatal(err)
		}
		leading(t, c2)
		if r, err := c2.Raft(t.Context()); err != nil || r.State != "client" {
			t.Errorf("got %+v, %v", r, err)
		}
		c2.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		cfg.Raft.JoinURL = a1.HTTP() // where there would be room
	}
	if err := agent.Reset(cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.DataDir, "raft-role")); len(left) > 0 {
		t.Error("reset did not forget the role")
	}
}

// A server whose place another one took does not come back as a client by
// itself, nor does it try for ever: it ends and says what can be done.
func TestFullClusterForServer(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	leading(t, client(t, a, ""))
	full := fullFront(t, a.HTTP())
	stop(t, a)
	cfg.Raft.JoinURL = full
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := agent.Run(ctx, cfg, discard(), 10*time.Second)
	if !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "fluid-agent reset") {
		t.Errorf("got %v, want ErrFull and what to do", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.DataDir, "raft-role")); len(left) > 0 {
		t.Error("it wrote down that it is a client")
	}
}

// The eighth agent of a cluster is its first client.
func TestEighthAgent(t *testing.T) {
	t.Parallel()
	a1 := start(t, testConfig(t))
	c1 := client(t, a1, "")
	leading(t, c1)
	for i := range 6 {
		joined(t, fmt.Sprintf("node%d", i+2), a1.HTTP())
	}
	cfg := testConfig(t)
	cfg.Node, cfg.Raft.JoinURL = "node8", a1.HTTP()
	a8 := start(t, cfg)
	select {
	case err := <-a8.Failed():
		if !errors.Is(err, store.ErrFull) {
			t.Fatalf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on as a server")
	}
	stop(t, a8)
	cfg.Raft.Role = "client" // as Run does
	c8 := client(t, start(t, cfg), "")
	leading(t, c8)
	register(t, c8, "web", "10.0.0.8")
	if r, err := c8.Raft(t.Context()); err != nil || r.State != "client" || len(r.Servers) != 7 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := c1.Remove(t.Context(), "node7"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client knows the six that are left", func() bool {
		r, err := c8.Raft(t.Context())
		return err == nil && len(r.Servers) == 6
	})
}

// fullFront is an agent's interface that wants no further servers.
func fullFront(t *testing.T, behind string) string {
	t.Helper()
	u, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != api.JoinPath {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"type":"urn:fluid:full","detail":"the cluster has enough servers: there are 7"}`)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// A server's data directory is not that of a client.
func TestClientInServersDirectory(t *testing.T) {
	cfg := testConfig(t)
	a := start(t, cfg)
	leading(t, client(t, a, ""))
	stop(t, a)
	cfg.Raft.Role, cfg.Raft.JoinURL = "client", "http://127.0.0.1:1"
	_, err := agent.Start(t.Context(), cfg, discard())
	var ce *agent.ConfigError
	if !errors.As(err, &ce) || ce.Key != "raft" || !strings.Contains(err.Error(), "fluid-agent reset") {
		t.Errorf("got %v", err)
	}
	cfg.Raft.Role = "auto" // the log decides
	leading(t, client(t, start(t, cfg), ""))
}

// A report that makes no sense is refused, whoever sends it.
func TestReportIsChecked(t *testing.T) {
	a := start(t, testConfig(t))
	c := client(t, a, "")
	leading(t, c)
	member := api.ReportedMember{ID: "d", Applied: "1:2", ClientTTL: "5s"}
	for name, edit := range map[string]func(*api.ClientReport){
		"no id":       func(r *api.ClientReport) { r.ID = "" },
		"long id":     func(r *api.ClientReport) { r.ID = strings.Repeat("x", 65) },
		"no position": func(r *api.ClientReport) { r.Members[0].Applied = "far" },
		"no TTL":      func(r *api.ClientReport) { r.Members[0].ClientTTL = "" },
		"too many":    func(r *api.ClientReport) { r.Members = slices.Repeat(r.Members, 257) },
		"too long":    func(r *api.ClientReport) { r.Name = strings.Repeat("x", 128<<10) },
	} {
		r := api.ClientReport{ID: "x", Name: "node2", Members: []api.ReportedMember{member}}
		edit(&r)
		if _, err := c.Report(t.Context(), r); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	ok := api.ClientReport{ID: "x", Name: "node2", Members: []api.ReportedMember{member}}
	info, err := c.Report(t.Context(), ok)
	if err != nil || !info.Server || len(info.Servers) != 1 || !info.Servers[0].Leader {
		t.Errorf("got %+v, %v", info, err)
	}
}
