package main

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestHistory(t *testing.T) {
	began := time.Now()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	h := newHistory(small)
	first := small.addresses(1)
	second := []netip.Addr{first[0], first[1], small.address(1, 2, 1)}
	third := []netip.Addr{first[1], small.address(1, 2, 1), small.address(1, 0, 1)}
	slices.SortFunc(third, netip.Addr.Compare)
	h.sending(1, first[2], small.address(1, 2, 1), at(1000))
	h.acknowledged(1, at(1100))
	h.sending(1, first[0], small.address(1, 0, 1), at(5000)) // not acknowledged yet

	tests := []struct {
		name    string
		service int
		got     []netip.Addr
		now     int // ms
		age     int // ms
		wrong   string
	}{
		{"a service that never changed", 0, small.addresses(0), 9000, 0, ""},
		{"another service's addresses", 0, first, 9000, 0, "never true"},
		{"before the change", 1, first, 500, 0, ""},
		{"the future", 1, second, 999, 0, "never true"},
		{"while the change is under way, the old", 1, first, 1050, 0, ""},
		{"while the change is under way, the new", 1, second, 1050, 0, ""},
		{"within the last second", 1, first, 2100, 1000, ""},
		{"more than a second ago", 1, first, 2101, 1001, "stopped being true"},
		{"the old while the next is not acknowledged", 1, second, 9000, 0, ""},
		{"the next while it is not acknowledged", 1, third, 9000, 0, ""},
		{"one address missing", 1, second[:2], 1200, 0, "never true"},
		{"nothing", 1, nil, 1200, 0, "never true"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			age, err := h.check(test.service, test.got, at(test.now))
			if want := time.Duration(test.age) * time.Millisecond; age != want {
				t.Errorf("age: got %s, want %s", age, want)
			}
			if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
				t.Errorf("got %v, want %q", err, test.wrong)
			}
		})
	}
}

// world is an agent and a DNS server in one: what is posted is answered.
type world struct {
	mu      sync.Mutex
	answers map[string][]string // by service and instance
	lie     func(m *dns.Msg)    // applied to every answer, if not nil
	drop    bool
}

func newWorld(w workload) *world {
	wo := &world{answers: map[string][]string{}}
	for s := range w.Services {
		for _, a := range w.addresses(s) {
			wo.answers[w.label(s)] = append(wo.answers[w.label(s)], a.String())
		}
	}
	return wo
}

func (wo *world) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var batch []app
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &batch); err != nil || r.URL.Path != "/v1/apps" || len(batch) == 0 {
		http.Error(w, "not a batch", http.StatusBadRequest)
		return
	}
	wo.mu.Lock()
	defer wo.mu.Unlock()
	for _, a := range batch {
		wo.answers[a.App][a.ID[1]-'0'] = a.IP
	}
}

func (wo *world) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.SetEdns0(udpSize, false)
	label, _, _ := strings.Cut(r.Question[0].Name, ".")
	wo.mu.Lock()
	defer wo.mu.Unlock()
	if wo.drop {
		return
	}
	for _, ip := range wo.answers[label] {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(ip),
		})
	}
	if wo.lie != nil {
		wo.lie(m)
	}
	_ = w.WriteMsg(m)
}

// serveDNS serves h on a port of its own until the test ends.
func serveDNS(t *testing.T, h dns.Handler) int {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, Handler: h, NotifyStartedFunc: func() { close(started) }}
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
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func TestChurnAgainstATrueServer(t *testing.T) {
	w := workload{Zone: "fluid.internal", Services: 50, Instances: 3, TTL: 60}
	wo := newWorld(w)
	agent := httptest.NewServer(wo)
	defer agent.Close()
	b := &bench{
		work: w, out: io.Discard, client: agent.Client(), agentURL: agent.URL,
		opts: options{churn: 500, churnFor: 600 * time.Millisecond, rate: 1000},
	}
	got, err := b.churn(t.Context(), &server{port: serveDNS(t, wo)})
	if err != nil {
		t.Fatal(err)
	}
	// A machine that is busy with other things may lose some packets.
	if got.err() != nil || got.Idle.Answers < 50 || got.Busy.Answers < 50 || got.Batches < 2 {
		t.Errorf("got %+v, %v", got, got.err())
	}
	if got.Idle.Oldest != 0 {
		t.Errorf("idle: an answer was %s old", got.Idle.Oldest)
	}
}

func TestChurnWindows(t *testing.T) {
	const us = time.Microsecond
	var r churnResult
	r.compare([]phase{
		{Answers: 10, P50: 10 * us, P99: 100 * us}, {Answers: 10, P50: 30 * us, P99: 900 * us}, {Answers: 9, Lost: 1, P50: 20 * us, P99: 200 * us},
	}, []phase{
		{Answers: 10, P50: 10 * us, P99: 150 * us, Oldest: us}, {Answers: 10, Wrong: 1, Example: "x", P50: 20 * us, P99: 900 * us}, {P99: 800 * us},
	})
	want := churnResult{
		Windows: 3, Ratio: 1.5, RatioLow: 1, RatioHigh: 4,
		Idle: phase{Answers: 29, Lost: 1, P50: 20 * us, P99: 200 * us},
		Busy: phase{Answers: 20, Wrong: 1, Oldest: us, P50: 10 * us, P99: 800 * us, Example: "x"},
	}
	if r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	r = churnResult{}
	if r.compare(nil, nil); r != (churnResult{}) {
		t.Errorf("of nothing: %+v", r)
	}
}

func TestProbeSeesLies(t *testing.T) {
	tests := []struct {
		name string
		lie  func(*dns.Msg)
		want string
	}{
		{"an address less", func(m *dns.Msg) { m.Answer = m.Answer[1:] }, "never true"},
		{"SERVFAIL", func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }, "SERVFAIL"},
		{"no EDNS", func(m *dns.Msg) { m.Extra = nil }, "EDNS"},
		{"another question", func(m *dns.Msg) { m.Question[0].Name = "x." + m.Question[0].Name }, "question"},
		{"another owner", func(m *dns.Msg) { m.Answer[0].Header().Name = "x.fluid.internal." }, "unexpected record"},
		{"a longer TTL", func(m *dns.Msg) { m.Answer[0].Header().Ttl = 61 }, "unexpected record"},
		{"cut", func(m *dns.Msg) { m.Truncated = true }, "whole answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wo := newWorld(small)
			wo.lie = test.lie
			p := &probe{port: serveDNS(t, wo), rate: 1000, work: small, history: newHistory(small), rng: rand.New(rand.NewPCG(1, 1))}
			got, err := p.run(t.Context(), 30*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if got.Answers == 0 || got.Wrong != got.Answers || !strings.Contains(got.Example, test.want) {
				t.Errorf("got %+v, want all wrong: %q", got, test.want)
			}
			if r := (&churnResult{Busy: got}); r.err() == nil {
				t.Error("the run did not fail")
			}
		})
	}
}

// What the verification asks before and after a run.
func TestAsk(t *testing.T) {
	wo := newWorld(small)
	b := &bench{work: small}
	port := serveDNS(t, wo)
	if err := b.ask(t.Context(), port, 1); err != nil {
		t.Errorf("the truth: %v", err)
	}
	wo.mu.Lock()
	wo.answers[small.label(1)][0] = "10.9.9.9"
	delete(wo.answers, small.label(0))
	wo.mu.Unlock()
	if err := b.ask(t.Context(), port, 1); err == nil || !strings.Contains(err.Error(), "10.9.9.9") {
		t.Errorf("another address: got %v", err)
	}
	if err := b.ask(t.Context(), port, 0); err == nil {
		t.Error("no address: got no error")
	}
}

func TestProbeCountsLost(t *testing.T) {
	wo := newWorld(small)
	wo.drop = true
	p := &probe{port: serveDNS(t, wo), rate: 1000, work: small, history: newHistory(small), rng: rand.New(rand.NewPCG(1, 1))}
	got, err := p.run(t.Context(), 30*time.Millisecond)
	if err != nil || got.Answers != 0 || got.Lost == 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestProbeStops(t *testing.T) {
	wo := newWorld(small)
	p := &probe{port: serveDNS(t, wo), rate: 1000, work: small, history: newHistory(small), rng: rand.New(rand.NewPCG(1, 1))}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := p.run(ctx, time.Hour); err == nil {
		t.Error("got no error")
	}
}
