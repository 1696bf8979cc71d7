package fluid

import (
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestOlder(t *testing.T) {
	tests := []struct {
		a, b uint32
		want bool
	}{{1, 2, true}, {2, 1, false}, {5, 5, false}, {1<<32 - 1, 3, true}, {3, 1<<32 - 1, false}}
	for _, tc := range tests {
		if got := older(tc.a, tc.b); got != tc.want {
			t.Errorf("older(%d, %d) = %v, want %v", tc.a, tc.b, got, tc.want)
		}
	}
}

// xfr transfers the zone.
func xfr(t *testing.T, addr string, q *dns.Msg) []dns.RR {
	t.Helper()
	ch, err := new(dns.Transfer).In(q, addr)
	if err != nil {
		t.Fatal(err)
	}
	var out []dns.RR
	for env := range ch {
		if env.Error != nil {
			t.Fatal(env.Error)
		}
		out = append(out, env.RR...)
	}
	return out
}

// secondary counts the NOTIFY messages that it acknowledges.
func secondary(t *testing.T) (addr string, notified *atomic.Int64) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	notified = new(atomic.Int64)
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Opcode == dns.OpcodeNotify {
			notified.Add(1)
		}
		m := new(dns.Msg)
		_ = w.WriteMsg(m.SetReply(r))
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = srv.Shutdown()
		<-done
	})
	return pc.LocalAddr().String(), notified
}

func TestTransfer(t *testing.T) {
	a := newAgent(t)
	to, notified := secondary(t)
	s := serve(t, `fluid.internal:PORT {
        bind 127.0.0.1
        fluid {
            agent AGENT
            startup_timeout 0s
        }
        transfer {
            to * `+to+`
        }
    }`, a)
	q := new(dns.Msg).SetAxfr("fluid.internal.")
	if m, _, err := (&dns.Client{Net: "tcp"}).Exchange(q, s.tcp); err != nil || m.Rcode == dns.RcodeSuccess {
		t.Errorf("before the sync: %v, %v, want a refusal", m, err)
	}
	fill(t, a)
	s.caughtUp()
	rrs := xfr(t, s.tcp, new(dns.Msg).SetAxfr("fluid.internal."))
	first, last := rrs[0], rrs[len(rrs)-1]
	if first.Header().Rrtype != dns.TypeSOA || first.String() != last.String() {
		t.Fatalf("the zone begins with %v and ends with %v, want its SOA twice", first, last)
	}
	got := lines(rrs[1:])
	for _, want := range []string{
		"fluid.internal. 5 in ns ns.dns.fluid.internal.", "ns.dns.fluid.internal. 5 in a 127.0.0.1",
		"checkout.fluid.internal. 5 in a 10.0.0.9", "checkout.service.fluid.internal. 5 in a 10.0.0.9",
		"10-0-0-9.checkout.fluid.internal. 5 in a 10.0.0.9", "blue.web.service.fluid.internal. 5 in a 10.0.1.1",
		"_metrics._tcp.web.fluid.internal. 5 in srv 0 1 9100 10-0-1-1-8080.web.fluid.internal.",
		"_services._dns-sd._udp.fluid.internal. 5 in ptr _web._tcp.fluid.internal.",
		"db.fluid.internal. 5 in cname db.example.org.",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("missing from the zone: %s", want)
		}
	}
	if dup := slices.Compact(slices.Clone(got)); len(dup) != len(got) {
		t.Error("a record is there twice")
	}

	serial := first.(*dns.SOA).Serial
	eventually(t, "settled serial", func() bool {
		serial = s.ask("fluid.internal.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial
		e := leases.running()
		e.mu.Lock()
		defer e.mu.Unlock()
		return !e.dirty && e.head.Serial == serial
	})
	if rrs := xfr(t, s.tcp, new(dns.Msg).SetIxfr("fluid.internal.", serial, "ns.", "h.")); len(rrs) != 1 {
		t.Errorf("IXFR with the present serial: %d records, want the SOA", len(rrs))
	}
	if rrs := xfr(t, s.tcp, new(dns.Msg).SetIxfr("fluid.internal.", serial-1, "ns.", "h.")); len(rrs) < 20 {
		t.Errorf("IXFR with an old serial: %d records, want the zone", len(rrs))
	}
	if m, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetAxfr("web.fluid.internal."), s.tcp); err != nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("transfer of a name below the zone: %v, %v, want REFUSED", m, err)
	}

	// Changes in quick succession are one NOTIFY, and a higher serial.
	eventually(t, "first notify", func() bool { return notified.Load() > 0 })
	before := notified.Load()
	begin := time.Now()
	for range 50 {
		a.commit(instance(t, "checkout 10.0.0.9 weight=7"))
		a.commit(instance(t, "checkout 10.0.0.9"))
	}
	s.caughtUp()
	eventually(t, "notify", func() bool { return notified.Load() > before })
	if n, most := notified.Load()-before, int64(time.Since(begin)/time.Second)+2; n > most {
		t.Errorf("%d NOTIFY messages for 100 changes in %v, want at most %d", n, time.Since(begin), most)
	}
	if now := s.ask("fluid.internal.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial; !older(serial, now) {
		t.Errorf("serial %d after changes, want more than %d", now, serial)
	}
}

func TestReverse(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	s := serve(t, "fluid.internal:PORT 10.0.0.0/8:PORT fd00::/16:PORT {\n bind 127.0.0.1\n fluid {\n agent AGENT\n }\n}\n", a)
	s.caughtUp()
	tests := []struct {
		name  string
		typ   uint16
		rcode int
		want  []string
	}{
		{"9.0.0.10.in-addr.arpa.", dns.TypePTR, 0, []string{"9.0.0.10.in-addr.arpa. 5 in ptr 10-0-0-9.checkout.fluid.internal."}},
		{"9.0.0.10.in-addr.arpa.", dns.TypeTXT, 0, []string{}},
		{"8.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, []string{}},
		{"0.0.10.in-addr.arpa.", dns.TypePTR, 0, []string{}},
		{"9.9.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, []string{}},
		{"1.9.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, []string{}},
		{"09.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, []string{}},
		{"10.in-addr.arpa.", dns.TypeNS, 0, []string{"10.in-addr.arpa. 5 in ns ns.dns.fluid.internal."}},
	}
	v6, err := dns.ReverseAddr("fd00::6")
	if err != nil {
		t.Fatal(err)
	}
	tests = append(tests, tests[0])
	tests[len(tests)-1].name = v6
	tests[len(tests)-1].want = []string{v6 + " 5 in ptr fd000000000000000000000000000006.v6.fluid.internal."}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			m := s.ask(tc.name, tc.typ)
			if m.Rcode != tc.rcode {
				t.Errorf("rcode %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[tc.rcode])
			}
			compare(t, "answer", lines(m.Answer), tc.want)
		})
	}
	a.commit(removed(instance(t, "checkout 10.0.0.9")))
	s.caughtUp()
	if m := s.ask("9.0.0.10.in-addr.arpa.", dns.TypePTR); m.Rcode != dns.RcodeNameError {
		t.Errorf("after the removal: %v, want NXDOMAIN", m)
	}
	if m := s.ask("0.0.10.in-addr.arpa.", dns.TypePTR); m.Rcode != dns.RcodeNameError {
		t.Errorf("above the removal: %v, want NXDOMAIN", m)
	}
}
