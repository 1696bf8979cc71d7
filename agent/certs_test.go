package agent_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent"
)

// A new certificate is served without a restart, a bad one is not, and metrics
// and readiness tell both.
func TestCertificatesAreFollowed(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until files are looked at again")
	}
	t.Parallel()
	equip := keys(t)
	cfg := testConfig(t)
	equip(&cfg)
	a := start(t, cfg)
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(cfg.TLSCAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(ca)
	serial := func() string {
		c, err := tls.Dial("tcp", strings.TrimPrefix(a.HTTP(), "https://"), &tls.Config{RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	was := serial()
	equip(&cfg) // writes a new certificate in place of the old one
	eventually(t, "the new certificate", func() bool { return serial() != was })

	if err := os.WriteFile(cfg.TLSCertFile, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	metrics := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.HTTP()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+cfg.Token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	eventually(t, "failure in the metrics", func() bool {
		return strings.Contains(metrics(), `fluid_certificate_reload_failed{use="raft"} 1`)
	})
	for _, want := range []string{`fluid_certificate_expiry_seconds{use="http"} 3.1`, `fluid_certificate_expiry_seconds{use="raft"} 3.1`, "fluid_raft_connections_refused_total 0"} {
		if !strings.Contains(metrics(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	serial() // the last good one is still served
}

func TestWrongCertificates(t *testing.T) {
	tests := map[string]struct {
		spoil func(*agent.Config)
		want  string
	}{
		"of another agent":  {func(c *agent.Config) { c.Raft.ID = "node9" }, "certificate of another agent"},
		"missing":           {func(c *agent.Config) { c.TLSKeyFile = filepath.Join(c.DataDir, "none") }, "no such file"},
		"not a certificate": {func(c *agent.Config) { c.Raft.TLSCertFile = c.Raft.TLSKeyFile }, "cannot be used"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			keys(t)(&cfg)
			tt.spoil(&cfg)
			a, err := agent.Start(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				_ = a.Stop(t.Context())
			}
			var ce *agent.ConfigError
			if !errors.As(err, &ce) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a ConfigError with %q", err, tt.want)
			}
		})
	}
}
