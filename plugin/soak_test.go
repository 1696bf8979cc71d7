package fluid

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/record"
)

// soakRounds returns how many rounds a soak has: FLUID_TEST_SOAK, or a few.
func soakRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FLUID_TEST_SOAK")
	switch {
	case text != "":
	case testing.Short():
		return 5
	default:
		return 15
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("FLUID_TEST_SOAK: %q is not a positive number", text)
	}
	return n
}

// Memory stays as it is while addresses change, and services come under names
// that were never there before and go, all of them asked for; and every answer
// is right from the change on.
func TestChurnSoak(t *testing.T) {
	const services, shortLived = 500, 200
	stays := func(round, s int) record.Entry {
		return soakInstance(fmt.Sprintf("svc%d", s), netip.AddrFrom4([4]byte{10, byte(round), byte(s >> 8), byte(s)}))
	}
	passes := func(round, s int) record.Entry {
		return soakInstance(fmt.Sprintf("run-%d-%d", round, s), netip.AddrFrom4([4]byte{11, byte(round), byte(s >> 8), byte(s)}))
	}
	var entries []record.Entry
	for s := range services {
		entries = append(entries, stays(0, s), instance(t, fmt.Sprintf("svc%d 12.0.%d.%d", s, s>>8, s&255)))
	}
	f, e := loaded(t, entries)

	w := dnstest.NewRecorder(silent)
	ask := func(name string, typ uint16) *dns.Msg {
		if _, err := f.ServeDNS(t.Context(), w, queryFor(name+".example.org.", typ, 1232)); err != nil {
			t.Fatal(err)
		}
		return w.Msg
	}
	has := func(name, address string, of int) {
		t.Helper()
		m := ask(name, dns.TypeA)
		found := false
		for _, rr := range m.Answer {
			found = found || rr.(*dns.A).A.String() == address
		}
		if len(m.Answer) != of || !found {
			t.Fatalf("%s: got %v, want %d records, %s among them", name, m.Answer, of, address)
		}
	}
	round := 0
	turn := func() {
		round++
		entries = entries[:0]
		for s := range services {
			entries = append(entries, stays(round, s))
		}
		for s := range shortLived {
			entries = append(entries, passes(round, s))
			if round > 1 {
				entries = append(entries, removed(passes(round-1, s)))
			}
		}
		prev := e.position()
		pos := record.Position{Generation: prev.Generation, Index: prev.Index + 1}
		for i := range entries {
			entries[i].Index = pos.Index
		}
		if err := (sink{e}).Apply(prev, pos, entries); err != nil {
			t.Fatal(err)
		}
		for s := range services {
			name := fmt.Sprintf("svc%d", s)
			has(name, fmt.Sprintf("10.%d.%d.%d", byte(round), s>>8, s&255), 2)
			ask(name, dns.TypeSRV)
			ask(name, dns.TypeAAAA)
		}
		for s := range shortLived {
			has(fmt.Sprintf("run-%d-%d", round, s), fmt.Sprintf("11.%d.%d.%d", byte(round), s>>8, s&255), 1)
			if m := ask(fmt.Sprintf("run-%d-%d", round-1, s), dns.TypeA); m.Rcode != dns.RcodeNameError && round > 1 {
				t.Fatalf("a removed service: got %v", m)
			}
		}
	}
	rounds := soakRounds(t)
	for range rounds {
		turn()
	}
	_, before := inUse()
	for range 2 * rounds {
		turn()
	}
	_, after := inUse()
	t.Logf("%d changes, heap %d KiB after a third of them, %d KiB after all", round*(services+2*shortLived), before>>10, after>>10)
	if after > before+before/4 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
}

func soakInstance(service string, a netip.Addr) record.Entry {
	in := record.Instance{Service: service, ID: "churning", Weight: record.DefaultWeight, Port: 80, Addrs: []netip.Addr{a}}
	return record.Entry{Key: record.InstanceKey(in.Service, in.ID), Value: string(in.Append(nil))}
}
