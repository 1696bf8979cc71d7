package agenttest

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// TestReloadUnderLoad reloads CoreDNS with good and broken Corefiles while
// 1,000 queries a second are asked: none is lost, and the stream from the
// agent and what is in memory survive.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startAgent()
	h.startDNS("ttl 7")
	h.register("checkout", "10.0.0.9")
	eventually(t, "the registration is answered", func() bool { return resolves(h.dns, "checkout"+zone, "10.0.0.9") })
	l := startLoad(t, h.dns, 1000, []string{"checkout" + zone}, func() int64 { return 0 }, func(q query, r *dns.Msg) error {
		if got := addrs(r); r.Rcode != dns.RcodeSuccess || len(got) != 1 || len(ede(r)) != 0 {
			return fmt.Errorf("%s: got %s %v EDE %v", q.name, dns.RcodeToString[r.Rcode], got, ede(r))
		}
		return nil
	})
	ttl := func() uint32 {
		r, err := ask(h.dns, "checkout"+zone, typeA)
		if err != nil || len(r.Answer) == 0 {
			return 0
		}
		return r.Answer[0].Header().Ttl
	}
	reload := func(option string, ok func(log string) bool) {
		t.Helper()
		h.writeCorefile(option)
		before := len(h.coredns.out.String())
		if err := h.coredns.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		eventually(t, "reload with "+option, func() bool { return ok(h.coredns.out.String()[before:]) })
	}
	for round := range uint32(10) {
		want := 100 + round
		reload(fmt.Sprintf("ttl %d", want), func(string) bool { return ttl() == want })
		for option, word := range map[string]string{
			"ttl never":                    "never",
			"agent " + h.socket + ".other": "agent",
			"colour red":                   "colour",
			"snapshot /does/not/exist/file\n\t}\n\tauto {\n\t\tdirectory": "auto", // a later plugin fails
		} {
			reload(option, func(log string) bool { return strings.Contains(log, word) && strings.Contains(log, "ERROR") })
			if got := ttl(); got != want {
				t.Errorf("after %q: got TTL %d, want %d", option, got, want)
			}
		}
	}
	h.register("checkout", "10.0.0.9") // unchanged; the stream is asked below
	eventually(t, "metrics are back", func() bool {
		_, ok := h.metricOf("coredns_fluid_agent_connected")
		return ok
	})
	h.wantMetric(`coredns_fluid_events_total{type="connect"}`, 1)
	h.wantMetric(`coredns_fluid_events_total{type="snapshot"}`, 1)
	l.finish()
}
