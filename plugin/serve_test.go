package fluid

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const zoneFile = `fluid.internal:PORT {
    bind 127.0.0.1
    fluid {
        agent AGENT
        ttl 7
        negative_ttl 3
    }
}`

// TestAnswers asks for every form of name.
func TestAnswers(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, zoneFile, a)
	s.caughtUp()
	const z = "fluid.internal."
	ns := []string{z + " 7 in ns ns.dns." + z}
	tests := []struct {
		name  string
		typ   string
		rcode int
		want  string // records of the answer, separated by "|"; owner first if it is not the name
		extra string
	}{
		{"checkout", "A", 0, "7 in a 10.0.0.9", ""},
		{"checkout.service", "A", 0, "7 in a 10.0.0.9", ""},
		{"checkout", "AAAA", 0, "", ""},
		{"checkout", "MX", 0, "", ""},
		{"nobody", "A", dns.RcodeNameError, "", ""},
		{"nobody.service", "A", dns.RcodeNameError, "", ""},
		{"10-0-0-9.checkout", "A", 0, "7 in a 10.0.0.9", ""},
		{"10-0-0-8.checkout", "A", dns.RcodeNameError, "", ""},
		{"x.10-0-0-9.checkout", "A", dns.RcodeNameError, "", ""},
		{"web", "A", 0, "4 in a 10.0.1.1|4 in a 10.0.1.2", ""},
		{"web", "AAAA", 0, "7 in aaaa fd00::1", ""},
		{
			"web", "SRV", 0, "4 in srv 0 1 8080 10-0-1-1-8080.web.@|4 in srv 0 3 8080 10-0-1-2-8080.web.@",
			"10-0-1-1-8080.web.@ 7 in a 10.0.1.1|10-0-1-1-8080.web.@ 7 in aaaa fd00::1|10-0-1-2-8080.web.@ 4 in a 10.0.1.2",
		},
		{
			"_web._tcp", "SRV", 0, "4 in srv 0 1 8080 10-0-1-1-8080.web.@|4 in srv 0 3 8080 10-0-1-2-8080.web.@",
			"10-0-1-1-8080.web.@ 7 in a 10.0.1.1|10-0-1-1-8080.web.@ 7 in aaaa fd00::1|10-0-1-2-8080.web.@ 4 in a 10.0.1.2",
		},
		{"_checkout._tcp", "SRV", 0, "", ""},
		{"_nobody._tcp", "SRV", dns.RcodeNameError, "", ""},
		{
			"_metrics._tcp.web", "SRV", 0, "7 in srv 0 1 9100 10-0-1-1-8080.web.@",
			"10-0-1-1-8080.web.@ 7 in a 10.0.1.1|10-0-1-1-8080.web.@ 7 in aaaa fd00::1",
		},
		{"_metrics._udp.web", "SRV", 0, "", ""},
		{"_none._tcp.web", "SRV", 0, "", ""},
		{"_dns._udp.dns-cache", "SRV", 0, "7 in srv 0 1 53 dns-1.dns-cache.@", "dns-1.dns-cache.@ 7 in a 10.0.2.1"},
		{"_tcp.web", "SRV", 0, "", ""},
		{"_tcp", "SRV", 0, "", ""},
		{"_udp", "A", 0, "", ""},
		{"service", "A", 0, "", ""},
		{"node", "A", dns.RcodeNameError, "", ""},
		{"dns", "A", 0, "", ""},
		{"eu.web.service", "A", 0, "4 in a 10.0.1.1|4 in a 10.0.1.2", ""},
		{"blue.web.service", "A", 0, "7 in a 10.0.1.1", ""},
		{"eu.blue.web.service", "A", 0, "7 in a 10.0.1.1", ""},
		{"red.web.service", "A", 0, "", ""},
		{"z1.pin._zone.web", "A", 0, "7 in a 10.0.1.1", ""},
		{"z9.pin._zone.web", "A", 0, "", ""},
		{"z1.prefer._zone.web", "A", 0, "4 in a 10.0.1.1|4 in a 10.0.1.2", ""},
		{"pin._zone.web", "A", 0, "", ""},
		{"10-0-1-1-8080.web", "TXT", 0, `7 in txt "env=prod"`, ""},
		{"10-0-1-2-8080.web", "TXT", 0, `4 in txt ""`, ""},
		{"_web._tcp", "PTR", 0, "4 in ptr 10-0-1-1-8080._web._tcp.@|4 in ptr 10-0-1-2-8080._web._tcp.@", ""},
		{
			"10-0-1-1-8080._web._tcp", "SRV", 0, "7 in srv 0 1 8080 10-0-1-1-8080.web.@",
			"10-0-1-1-8080.web.@ 7 in a 10.0.1.1|10-0-1-1-8080.web.@ 7 in aaaa fd00::1",
		},
		{"10-0-1-1-8080._web._tcp", "TXT", 0, `7 in txt "env=prod"`, ""},
		{"_services._dns-sd._udp", "PTR", 0, "7 in ptr _dns-cache._tcp.@|7 in ptr _web._tcp.@|7 in ptr _db._tcp.@", ""},
		{
			"web", "HTTPS", 0, "7 in https 1 10-0-1-1-8080.web.@",
			"10-0-1-1-8080.web.@ 7 in a 10.0.1.1|10-0-1-1-8080.web.@ 7 in aaaa fd00::1",
		},
		{"_8443._https.web", "HTTPS", 0, "4 in https 1 10-0-1-2-8080.web.@", "10-0-1-2-8080.web.@ 4 in a 10.0.1.2"},
		{"_443._https.web", "HTTPS", dns.RcodeNameError, "", ""},
		{"_53._dns.dns-cache", "SVCB", 0, "7 in svcb 1 dns-1.dns-cache.@", "dns-1.dns-cache.@ 7 in a 10.0.2.1"},
		{"_dns.dns-cache", "SVCB", 0, "", ""},
		{"_nope.dns-cache", "SVCB", dns.RcodeNameError, "", ""},
		{"db", "CNAME", 0, "7 in cname db.example.org.", ""},
		{"db", "A", 0, "7 in cname db.example.org.", ""},
		{"_db._tcp", "SRV", 0, "7 in srv 0 1 5432 db.example.org.", ""},
		{"ns.dns", "A", 0, "7 in a 127.0.0.1", ""},
		{"v6", "A", 0, "", ""},
		{"v6", "AAAA", 0, "7 in aaaa fd00::6", ""},
		{"fd000000000000000000000000000006.v6", "AAAA", 0, "7 in aaaa fd00::6", ""},
		{`web\.x`, "A", dns.RcodeNameError, "", ""},
		{strings.Repeat("a.", 50) + "web.service", "A", dns.RcodeNameError, "", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name+" "+tc.typ, func(t *testing.T) {
			m := s.ask(tc.name+"."+z, dns.StringToType[tc.typ])
			if m.Rcode != tc.rcode {
				t.Errorf("rcode %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[tc.rcode])
			}
			if !m.Authoritative || m.Truncated {
				t.Errorf("flags: %v", m.MsgHdr)
			}
			compare(t, "answer", lines(m.Answer), expand(tc.want, tc.name+"."+z))
			compare(t, "additional", lines(m.Extra), expand(tc.extra, tc.name+"."+z))
			if tc.want != "" {
				compare(t, "authority", lines(m.Ns), ns)
			} else if soa := lines(m.Ns); len(soa) != 1 || !strings.HasPrefix(soa[0], z+" 3 in soa ns.dns."+z+" hostmaster."+z) || !strings.HasSuffix(soa[0], " 60 10 86400 3") {
				t.Errorf("authority %q, want one SOA", soa)
			}
		})
	}
}

// fill commits a few services that between them have everything.
func fill(t testing.TB, a *agent) {
	a.commit(
		instance(t, "checkout 10.0.0.9"),
		instance(t, "web 10.0.1.1,fd00::1 port=8080 http:80 https:443 metrics:9100 +eu +blue zone=z1 env=prod"),
		instance(t, "web 10.0.1.2 port=8080 http:80 https:8443 +eu zone=z2 weight=3 ttl=4s"),
		instance(t, "dns-cache 10.0.2.1 dns:53/udp port=53 id=dns-1"),
		instance(t, "db host=db.example.org port=5432 id=db"),
		instance(t, "v6 fd00::6"),
	)
}

func expand(want, owner string) []string {
	out := []string{}
	if want == "" {
		return out
	}
	for rr := range strings.SplitSeq(want, "|") {
		rr = strings.ReplaceAll(rr, "@", "fluid.internal.")
		if c := rr[0]; c >= '0' && c <= '9' && !strings.Contains(strings.Fields(rr)[0], ".") {
			rr = owner + " " + rr
		}
		out = append(out, rr)
	}
	slices.Sort(out)
	return out
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func TestApex(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, zoneFile, a)
	s.caughtUp()
	m := s.ask("fluid.internal.", dns.TypeSOA)
	soa, ok := m.Answer[0].(*dns.SOA)
	if !ok || soa.Serial < uint32(time.Now().Unix()-60) || soa.Minttl != 3 {
		t.Errorf("SOA %v", m.Answer)
	}
	m = s.ask("fluid.internal.", dns.TypeNS)
	compare(t, "NS", lines(m.Answer), []string{"fluid.internal. 7 in ns ns.dns.fluid.internal."})
	compare(t, "glue", lines(m.Extra), []string{"ns.dns.fluid.internal. 7 in a 127.0.0.1"})
	if m = s.ask("fluid.internal.", dns.TypeA); m.Rcode != 0 || len(m.Answer) != 0 || len(m.Ns) != 1 {
		t.Errorf("A at the apex: %v", m)
	}
}

// The question comes back byte for byte, and its case does not matter.
func TestCase(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, zoneFile, a)
	s.caughtUp()
	for _, name := range []string{"ChEcKoUt.FLUID.internal.", "10-0-0-9.CHECKOUT.Fluid.Internal.", "NOBODY.fluid.INTERNAL."} {
		m := s.ask(name, dns.TypeA)
		if got := m.Question[0].Name; got != name {
			t.Errorf("question %s, want %s", got, name)
		}
		if wantNone := strings.HasPrefix(name, "NOBODY"); (len(m.Answer) == 0) != wantNone {
			t.Errorf("%s: answer %v", name, m.Answer)
		}
	}
}

// Queries that are not the plugin's go to the next one, and there is none.
func TestNotOurs(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, `.:PORT {
        bind 127.0.0.1
        fluid fluid.internal {
            agent AGENT
            fallthrough
        }
        hosts {
            10.9.9.9 pinned.fluid.internal
            fallthrough
        }
    }`, a)
	s.caughtUp()
	tests := []struct {
		name  string
		q     func(*dns.Msg)
		rcode int
	}{
		{"other zone", func(m *dns.Msg) { m.SetQuestion("example.org.", dns.TypeA) }, dns.RcodeServerFailure},
		{"sibling zone", func(m *dns.Msg) { m.SetQuestion("notfluid.internal.", dns.TypeA) }, dns.RcodeServerFailure},
		{"class CH", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		{"AXFR without transfer", func(m *dns.Msg) { m.SetQuestion("fluid.internal.", dns.TypeAXFR) }, dns.RcodeRefused},
		{"falls through", func(m *dns.Msg) { m.SetQuestion("late.fluid.internal.", dns.TypeA) }, dns.RcodeServerFailure},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			m := s.ask("checkout.fluid.internal.", dns.TypeA, tc.q)
			if m.Rcode != tc.rcode {
				t.Errorf("rcode %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[tc.rcode])
			}
		})
	}
	if m := s.ask("pinned.fluid.internal.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("a name pinned by hosts: %v", m)
	}
}

// Before the first sync everything is SERVFAIL with EDE 14, never NXDOMAIN,
// and nothing falls through.
func TestUnsynced(t *testing.T) {
	a := newAgent(t)
	s := serve(t, strings.Replace(zoneFile, "ttl 7", "startup_timeout 0s\n fallthrough", 1), a)
	for _, name := range []string{"checkout.fluid.internal.", "fluid.internal.", "ns.dns.fluid.internal."} {
		m := s.ask(name, dns.TypeA, edns(1232, false))
		if e := ede(m); m.Rcode != dns.RcodeServerFailure || e == nil || e.InfoCode != dns.ExtendedErrorCodeNotReady {
			t.Errorf("%s: %v, want SERVFAIL with EDE 14", name, m)
		}
		if m = s.ask(name, dns.TypeA); m.IsEdns0() != nil {
			t.Errorf("%s: an OPT record for a query without one", name)
		}
	}
	fill(t, a)
	s.caughtUp()
	if m := s.ask("checkout.fluid.internal.", dns.TypeA); m.Rcode != 0 || len(m.Answer) != 1 {
		t.Errorf("after the sync: %v", m)
	}
}

// makeStale ends the feed and makes its last word ago long.
func makeStale(t *testing.T, s *server, ago time.Duration) *engine {
	s.agent.stop()
	e := leases.running()
	e.news.Store(int64(time.Since(e.start) - ago))
	eventually(t, "stale", func() bool { return e.state.Load() == stale })
	return e
}

func TestStale(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, strings.Replace(zoneFile, "ttl 7", "ttl 7\n serve_stale 1h 9", 1), a)
	s.caughtUp()
	e := makeStale(t, s, 20*time.Second)
	m := s.ask("checkout.fluid.internal.", dns.TypeA, edns(1232, false))
	if x := ede(m); x == nil || x.InfoCode != dns.ExtendedErrorCodeStaleAnswer || m.Rcode != 0 {
		t.Errorf("stale answer without EDE 3: %v", m)
	}
	compare(t, "stale answer", lines(m.Answer), []string{"checkout.fluid.internal. 9 in a 10.0.0.9"})
	if m = s.ask("nobody.fluid.internal.", dns.TypeA, edns(1232, false)); ede(m) == nil || m.Rcode != dns.RcodeNameError {
		t.Errorf("stale NXDOMAIN without EDE: %v", m)
	}
	f := &Fluid{shared: &shared{}}
	f.engine.Store(e)
	if !f.Ready() {
		t.Error("not ready any more")
	}
	e.news.Store(int64(time.Since(e.start) - 2*time.Hour))
	m = s.ask("checkout.fluid.internal.", dns.TypeA, edns(1232, false))
	if x := ede(m); x == nil || x.InfoCode != dns.ExtendedErrorCodeNoReachableAuthority || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("past serve_stale: %v, want SERVFAIL with EDE 22", m)
	}
	a.start()
	eventually(t, "fresh again", func() bool { return e.state.Load() == fresh })
	if m = s.ask("checkout.fluid.internal.", dns.TypeA, edns(1232, false)); ede(m) != nil || m.Answer[0].Header().Ttl != 7 {
		t.Errorf("fresh again: %v", m)
	}
}

// TestSnapshot restarts CoreDNS with its agent gone.
func TestSnapshot(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	path := filepath.Join(t.TempDir(), "last.good")
	corefile := strings.Replace(zoneFile, "ttl 7", "ttl 7\n startup_timeout 100ms\n snapshot "+path, 1)
	s := serve(t, corefile, a)
	s.caughtUp()
	a.commit(instance(t, "late 10.0.0.10"))
	s.caughtUp()
	serial := s.ask("fluid.internal.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial
	member := leases.running().head.Member
	s.stop()
	a.stop()

	s = serve(t, corefile, a)
	m := s.ask("late.fluid.internal.", dns.TypeA, edns(1232, false))
	if x := ede(m); len(m.Answer) != 1 || x == nil || x.InfoCode != dns.ExtendedErrorCodeStaleAnswer {
		t.Errorf("from disk: %v, want a stale answer", m)
	}
	if got := s.ask("fluid.internal.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial; got <= serial {
		t.Errorf("serial %d after the restart, want more than %d", got, serial)
	}
	if got := leases.running().head.Member; got != member {
		t.Errorf("member id %q, want %q as before", got, member)
	}
	before := leases.running().client.Stats().Snapshots
	a.start()
	eventually(t, "fresh", func() bool { return leases.running().state.Load() == fresh })
	if got := leases.running().client.Stats(); got.Snapshots != before || got.Resumes == 0 {
		t.Errorf("%+v: want a resume, not a snapshot", got)
	}
	s.stop()
	a.stop()

	if err := os.WriteFile(path, []byte("not a snapshot"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = serve(t, corefile, a)
	if m := s.ask("late.fluid.internal.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("from a corrupt file: %v, want SERVFAIL", m)
	}
	if _, err := os.Stat(path + ".corrupt"); err != nil {
		t.Error(err)
	}
}
