//go:build full

package fluid

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/coredns/coredns/plugin/dnssec"
	"github.com/miekg/dns"
)

// zoneKey makes a key for the zone and returns it with the name of its files.
func zoneKey(t *testing.T) (key *dns.DNSKEY, base string) {
	t.Helper()
	key = &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: "fluid.internal.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	base = filepath.Join(t.TempDir(), fmt.Sprintf("Kfluid.internal.+013+%05d", key.KeyTag()))
	for suffix, text := range map[string]string{".key": key.String() + "\n", ".private": key.PrivateKeyString(private)} {
		if err := os.WriteFile(base+suffix, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, base
}

// signed reports what is wrong with the signatures of a section's RRsets.
func signed(key *dns.DNSKEY, section []dns.RR) error {
	type set struct {
		name string
		typ  uint16
	}
	sets, sigs := map[set][]dns.RR{}, map[set]*dns.RRSIG{}
	for _, rr := range section {
		h := rr.Header()
		if sig, ok := rr.(*dns.RRSIG); ok {
			sigs[set{h.Name, sig.TypeCovered}] = sig
		} else if h.Rrtype != dns.TypeOPT {
			sets[set{h.Name, h.Rrtype}] = append(sets[set{h.Name, h.Rrtype}], rr)
		}
	}
	for s, rrs := range sets {
		sig := sigs[s]
		if sig == nil {
			return fmt.Errorf("%s %s is not signed", s.name, dns.TypeToString[s.typ])
		}
		if err := sig.Verify(key, rrs); err != nil {
			return fmt.Errorf("%s %s: %w", s.name, dns.TypeToString[s.typ], err)
		}
	}
	return nil
}

// The dnssec plugin signs what fluid answers as it is asked, the whole set and
// again after a change, and keeps nothing that is out of date.
func TestDNSSEC(t *testing.T) {
	key, base := zoneKey(t)
	a := newAgent(t)
	fill(t, a)
	s := serve(t, "fluid.internal:PORT {\n bind 127.0.0.1\n dnssec {\n key file "+base+"\n }\n fluid {\n agent AGENT\n }\n}", a)
	s.caughtUp()
	check := func(name string, typ uint16, answers int) {
		t.Helper()
		for range 5 { // drawn anew for others
			m := s.ask(name+"fluid.internal.", typ, edns(4096, true))
			n := 0
			for _, rr := range m.Answer {
				if rr.Header().Rrtype == typ {
					n++
				}
			}
			if m.Rcode != dns.RcodeSuccess || n != answers {
				t.Errorf("%s %s: %v, want %d records", name, dns.TypeToString[typ], m, answers)
			}
			for what, section := range map[string][]dns.RR{"answer": m.Answer, "authority": m.Ns} {
				if err := signed(key, section); err != nil {
					t.Errorf("%s %s, %s: %v", name, dns.TypeToString[typ], what, err)
				}
			}
			if answers == 0 && len(m.Ns) < 4 { // SOA, NSEC, and the signature of each
				t.Errorf("%s %s: authority %v, want a signed denial", name, dns.TypeToString[typ], m.Ns)
			}
		}
	}
	check("", dns.TypeDNSKEY, 1)
	check("", dns.TypeSOA, 1)
	check("web.", dns.TypeA, 2)
	check("web.", dns.TypeSRV, 2)
	check("_web._tcp.", dns.TypePTR, 2)
	check("checkout.", dns.TypeAAAA, 0)
	check("nobody.", dns.TypeA, 0) // denied as a name without data (RFC 9824)

	a.commit(instance(t, "web 10.0.1.3 port=8080"))
	s.caughtUp()
	check("web.", dns.TypeA, 3)

	if m := s.ask("web.fluid.internal.", dns.TypeA); len(m.Answer) != 3 || len(lines(m.Answer)) != 3 {
		t.Errorf("without DO: %v", m)
	}
	// With its signature the answer is larger than the client takes.
	const many = 40
	for i := range many {
		a.commit(instance(t, fmt.Sprintf("big 10.1.0.%d", i+1)))
	}
	s.caughtUp()
	if m := s.ask("big.fluid.internal.", dns.TypeA, edns(700, true)); !m.Truncated {
		t.Errorf("too large: %v, want TC", m)
	}
	m, err := exchange(s.tcp, "tcp", "big.fluid.internal.", dns.TypeA, edns(700, true))
	if err != nil || m.Truncated || len(m.Answer) != many+1 {
		t.Fatalf("over TCP: %v, %v", m, err)
	}
	if err := signed(key, m.Answer); err != nil {
		t.Errorf("over TCP: %v", err)
	}
}
