package fluid

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// What was loaded from disk stays stale beside an agent that knows less, and
// is fresh once the agent has caught up with it.
func TestAgentBehindDisk(t *testing.T) {
	a := newAgent(t)
	a.commit(instance(t, "checkout 10.0.0.9"))
	corefile := strings.Replace(zoneFile, "ttl 7", "ttl 7\n startup_timeout 0s\n snapshot "+t.TempDir()+"/last.good", 1)
	s := serve(t, corefile, a)
	s.caughtUp()
	a.commit(instance(t, "late 10.0.0.10"))
	s.caughtUp()
	s.stop()

	b := newAgent(t)
	b.commit(instance(t, "checkout 10.0.0.9"))
	s = serve(t, corefile, b)
	e := leases.running()
	eventually(t, "the agent says that it is behind", func() bool { return e.client.Stats().Behind > 0 })
	m := s.ask("late.fluid.internal.", dns.TypeA, edns(1232, false))
	if len(m.Answer) != 1 || ede(m) == nil || e.state.Load() != stale {
		t.Errorf("beside an agent that is behind: %v, want a stale answer", m)
	}
	b.commit(instance(t, "late 10.0.0.10"))
	eventually(t, "fresh", func() bool { return e.state.Load() == fresh })
	if m := s.ask("late.fluid.internal.", dns.TypeA, edns(1232, false)); len(m.Answer) != 1 || ede(m) != nil {
		t.Errorf("beside an agent that caught up: %v", m)
	}
}

// A zone that is configured otherwise is another zone to a secondary.
func TestSerialFollowsConfiguration(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, corefile("", ""), a)
	s.caughtUp()
	eventually(t, "settled serial", settled)
	before := leases.running().serial.Load()
	if err := s.reload(corefile("", "")); err != nil {
		t.Fatal(err)
	}
	if got := leases.running().serial.Load(); got != before {
		t.Errorf("serial %d after a reload of the same Corefile, want %d", got, before)
	}
	if err := s.reload(corefile("ttl 77", "")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "higher serial", func() bool { return older(before, leases.running().serial.Load()) })
}
