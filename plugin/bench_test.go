package fluid

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// constant is a plugin that always gives the same answer: the least that any
// plugin can do.
type constant struct{ answer, ns []dns.RR }

func (c constant) Name() string { return "constant" }

func (c constant) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	m.Answer, m.Ns = c.answer, c.ns
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// discard is a client that does not listen.
type discard struct{ *test.ResponseWriter }

var silent = discard{&test.ResponseWriter{}}

var client = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000}

// RemoteAddr does not allocate, as that of a real socket does not.
func (discard) RemoteAddr() net.Addr { return client }

// from returns a client at an address.
func from(ip string) dns.ResponseWriter { return &test.ResponseWriter{RemoteIP: ip} }

func (discard) WriteMsg(*dns.Msg) error { return nil }

// loaded returns a handler for a zone with the given entries.
func loaded(t testing.TB, entries []record.Entry) (*Fluid, *engine) {
	t.Helper()
	e := newEngine(process{Agent: "/nonexistent", Capacity: defaultCapacity, Denial: defaultDenial, GossipNode: "bench"})
	c := newTestController(t)
	b, given, err := parse(c)
	if err != nil {
		t.Fatal(err)
	}
	e.configure(given.process(), []*block{b})
	e.mu.Lock()
	if _, err := e.catalog.Replace(record.Position{Generation: 1, Index: 1}, func(yield func(record.Entry) bool) {
		for i := range entries {
			entries[i].Index = 1
			if !yield(entries[i]) {
				return
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	e.publish(catalog.Changes{All: true})
	e.confirm()
	e.mu.Unlock()
	t.Cleanup(e.close)
	f := &Fluid{shared: &shared{block: b}}
	f.engine.Store(e)
	return f, e
}

func queryFor(name string, typ uint16, size uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	if size > 0 {
		m.SetEdns0(size, false)
	}
	return m
}

// ServeDNS allocates the reply, and what does not fit into it: a drawn
// additional section, or more than four records.
func TestServeAllocations(t *testing.T) {
	f, _ := loaded(t, []record.Entry{
		instance(t, "one 10.0.0.1"),
		instance(t, "three 10.0.0.1 port=80"), instance(t, "three 10.0.0.2 port=80"), instance(t, "three 10.0.0.3 port=80 weight=5"),
	})
	tests := []struct {
		name string
		q    *dns.Msg
		want float64
	}{
		{"one address", queryFor("one.example.org.", dns.TypeA, 0), 1},
		{"one address, EDNS", queryFor("one.example.org.", dns.TypeA, 1232), 1},
		{"three addresses", queryFor("three.example.org.", dns.TypeA, 1232), 1},
		{"three services", queryFor("three.example.org.", dns.TypeSRV, 1232), 2},
		{"no data", queryFor("one.example.org.", dns.TypeAAAA, 1232), 1},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var h plugin.Handler = f
			got := testing.AllocsPerRun(200, func() { _, _ = h.ServeDNS(t.Context(), silent, tc.q) })
			if got > tc.want {
				t.Errorf("%v allocations, want at most %v", got, tc.want)
			}
		})
	}
}

func BenchmarkServeDNS(b *testing.B) {
	var entries []record.Entry
	for s := range 10_000 {
		for i := range 3 {
			entries = append(entries, instance(b, fmt.Sprintf("svc%d 10.%d.%d.%d port=80", s, i, s/250, s%250+1)))
		}
	}
	f, _ := loaded(b, entries)
	name := func(i int) string { return fmt.Sprintf("svc%d.example.org.", i%10_000) }
	run := func(label string, h plugin.Handler, typ uint16) {
		b.Run(label, func(b *testing.B) {
			qs := make([]*dns.Msg, 1024)
			for i := range qs {
				qs[i] = queryFor(name(i*7), typ, 1232)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := h.ServeDNS(b.Context(), silent, qs[i&1023]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
	rr := test.A("svc1.example.org. 5 IN A 10.0.0.1")
	run("constant", constant{answer: []dns.RR{rr, rr, rr}}, dns.TypeA)
	run("A", f, dns.TypeA)
	run("SRV", f, dns.TypeSRV)
	run("AAAA", f, dns.TypeAAAA)
}
