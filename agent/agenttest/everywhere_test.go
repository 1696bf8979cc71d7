package agenttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// spread is the part of an answer to ?wait=everywhere that the tests look at.
type spread struct {
	ID         string   `json:"id"`
	Everywhere bool     `json:"everywhere"`
	Lagging    []string `json:"lagging"`
	ClientTTL  string   `json:"clientTTL"`
}

// everywhere makes a write that must be done, and returns how far it got.
func (h *host) everywhere(method, path, body string) spread {
	h.t.Helper()
	code, answer := h.call(method, path, body)
	var s spread
	if err := json.Unmarshal([]byte(answer), &s); err != nil || code != http.StatusCreated && code != http.StatusOK {
		h.t.Fatalf("%s %s: got %d %s", method, path, code, answer)
	}
	return s
}

// now returns what DNS answers to one query, without a second try.
func (h *host) now(name string) []string {
	h.t.Helper()
	r := mustAsk(h.t, h.dns, name, typeA)
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		h.t.Fatalf("%s: got %s", name, dns.RcodeToString[r.Rcode])
	}
	return addrs(r)
}

// TestEverywhere: when a write says that it is applied everywhere, the very
// next query shows it; when a DNS server cannot be asked, the write says which.
func TestEverywhere(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.startDNS()
	h.awaitURL(h.coredns, "http://"+h.ready+"/ready")
	h.register("checkout", "10.0.0.9")

	for i := range 30 {
		name, ip := fmt.Sprintf("now-%d", i), fmt.Sprintf("10.3.0.%d", i)
		s := h.everywhere(http.MethodPost, "/v1/apps?wait=everywhere", fmt.Sprintf(`{"appId":%q,"ip":%q}`, name, ip))
		if !s.Everywhere || len(s.Lagging) != 0 {
			t.Fatalf("register %s: got %+v, want it everywhere", name, s)
		}
		if got := h.now(name + zone); !slices.Equal(got, []string{ip}) {
			t.Fatalf("%s right after everywhere: got %v, want %s", name, got, ip)
		}
		s = h.everywhere(http.MethodPost, "/v1/overlays?wait=everywhere", fmt.Sprintf(`{"kind":"drain","service":%q,"instance":%q}`, name, ip))
		if !s.Everywhere || s.ClientTTL == "" || s.ClientTTL == "0s" {
			t.Fatalf("drain %s: got %+v, want it everywhere, with the TTL of clients", name, s)
		}
		if got := h.now(name + zone); len(got) != 0 {
			t.Fatalf("%s right after the drain was everywhere: got %v, want none", name, got)
		}
		s = h.everywhere(http.MethodDelete, "/v1/overlays/"+s.ID+"?wait=everywhere", "")
		if got := h.now(name + zone); !s.Everywhere || !slices.Equal(got, []string{ip}) {
			t.Fatalf("%s right after the drain was lifted everywhere: got %v, want %s", name, got, ip)
		}
	}

	lagging := func(what, ip string, want string) {
		t.Helper()
		s := h.everywhere(http.MethodPost, "/v1/apps?wait=everywhere&timeout=300ms", fmt.Sprintf(`{"appId":"checkout","ip":%q}`, ip))
		if s.Everywhere || len(s.Lagging) != 1 || !strings.Contains(s.Lagging[0], want) {
			t.Errorf("%s: got %+v, want everywhere false and one that lags, %q", what, s, want)
		}
	}
	h.coredns.freeze()
	lagging("CoreDNS frozen", "10.0.0.10", "dns")
	if err := h.coredns.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s := h.everywhere(http.MethodPost, "/v1/apps?wait=everywhere", `{"appId":"checkout","ip":"10.0.0.11"}`)
	if got := h.now("checkout" + zone); !s.Everywhere || !slices.Equal(got, []string{"10.0.0.10", "10.0.0.11", "10.0.0.9"}) {
		t.Errorf("CoreDNS awake again: got %+v and %v", s, got)
	}
	h.coredns.kill()
	lagging("CoreDNS dead", "10.0.0.12", "unreachable")
}
