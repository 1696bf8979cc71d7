package agent_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
	"github.com/fluid-sd/fluid/agent/pki"
)

// keys issues what tls init and tls issue do, and returns how an agent of a
// name uses it.
func keys(t *testing.T) func(*agent.Config) {
	t.Helper()
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	save := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, _, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	caFile := save("ca.crt", cert)
	return func(c *agent.Config) {
		cert, key, err := ca.Issue(pki.Request{
			Identity: pki.Identity{Name: c.RaftID()}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c.TLSCertFile, c.TLSKeyFile, c.TLSCAFile = save(c.RaftID()+".crt", cert), save(c.RaftID()+".key", key), caFile
		c.Raft.TLSCertFile, c.Raft.TLSKeyFile, c.Raft.TLSCAFile = c.TLSCertFile, c.TLSKeyFile, caFile
		c.Token, c.Raft.JoinSecret = "s3cret", "j0in"
	}
}

// Everything over TLS: HTTP, joining, forwarding and consensus.
func TestTLS(t *testing.T) {
	equip := keys(t)
	admin := func(a *agent.Agent) *api.Client {
		c, err := api.NewClient("unix:"+a.Admin(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		leading(t, c)
		return c
	}
	cfg := testConfig(t)
	equip(&cfg)
	a1 := start(t, cfg)
	c1 := admin(a1)
	if !strings.HasPrefix(a1.HTTP(), "https://") {
		t.Fatalf("serves %s", a1.HTTP())
	}
	cfg2 := testConfig(t)
	cfg2.Node, cfg2.Raft.JoinURL = "node2", a1.HTTP()
	equip(&cfg2)
	c2 := admin(start(t, cfg2))
	register(t, c2, "web", "10.0.0.1")
	if s, err := c1.Service(t.Context(), "web", api.Filter{}); err != nil || len(s.Instances) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}

	// A client follows over TLS, too, and needs no key of consensus.
	cfg5 := testConfig(t)
	cfg5.Node, cfg5.Raft.Role, cfg5.Raft.JoinURL = "node5", "client", a1.HTTP()
	equip(&cfg5)
	cfg5.Raft.TLSCertFile, cfg5.Raft.TLSKeyFile, cfg5.Raft.TLSCAFile = "", "", ""
	c5 := admin(start(t, cfg5))
	register(t, c5, "web", "10.0.0.2")
	if r, err := c5.Raft(t.Context()); err != nil || !strings.HasPrefix(r.Follows, "https://") {
		t.Errorf("client over TLS: got %+v, %v", r, err)
	}

	// A certificate for another name is refused before anything is served.
	cfg3 := testConfig(t)
	equip(&cfg3)
	cfg3.Raft.ID = "node3"
	var ce *agent.ConfigError
	if a, err := agent.Start(t.Context(), cfg3, slog.New(slog.DiscardHandler)); !errors.As(err, &ce) || ce.Key != "raft_tls_cert_file" {
		t.Errorf("got %v, %v", a, err)
	}
	// One of another authority cannot join.
	cfg4 := testConfig(t)
	cfg4.Node, cfg4.Raft.JoinURL = "node4", a1.HTTP()
	keys(t)(&cfg4)
	cfg4.TLSCAFile = cfg2.TLSCAFile // it trusts the cluster, the cluster not it
	a4 := start(t, cfg4)
	c4, err := api.NewClient("unix:"+a4.Admin(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c4.Close)
	eventually(t, "a refused call back", func() bool {
		h, err := c4.Ready(t.Context())
		return err == nil && strings.Contains(strings.Join(h.Reasons, ";"), "call back")
	})
}
