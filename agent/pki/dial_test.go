package pki_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/agent/pki"
)

func TestDialTLS(t *testing.T) {
	now := time.Now()
	one, err := pki.NewCA(now)
	if err != nil {
		t.Fatal(err)
	}
	two, err := pki.NewCA(now)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(ca *pki.CA, ips ...netip.Addr) *httptest.Server {
		cert, key, err := ca.Issue(pki.Request{Identity: pki.Identity{Name: "a"}, IPs: ips}, now)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Proto", r.Proto) }))
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		s.Config.ErrorLog = nil
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	good, other, elsewhere := serve(one, loopback), serve(two, loopback), serve(one, netip.MustParseAddr("10.0.0.1"))

	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if _, err := pki.DialTLS(caFile); err == nil {
		t.Error("a missing authority is accepted")
	}
	pem, _, _ := one.PEM()
	put(t, caFile, pem)
	dial, err := pki.DialTLS(caFile)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialTLSContext: dial, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	get := func(s *httptest.Server) (string, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		return resp.Header.Get("Proto"), nil
	}
	if proto, err := get(good); err != nil || proto != "HTTP/2.0" {
		t.Errorf("good server: %s, %v", proto, err)
	}
	if _, err := get(other); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("server of another authority: %v", err)
	}
	if _, err := get(elsewhere); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("server with a certificate for another address: %v", err)
	}
	pem, _, _ = two.PEM()
	put(t, caFile, pem)
	if _, err := get(other); err != nil {
		t.Errorf("after the authority was replaced: %v", err)
	}
	put(t, caFile, []byte("nonsense"))
	tr.CloseIdleConnections()
	if _, err := get(good); err == nil || !strings.Contains(err.Error(), caFile) {
		t.Errorf("with a bad file: %v", err)
	}
}
