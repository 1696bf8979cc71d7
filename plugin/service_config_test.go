package fluid

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/record"
)

// A service's own configuration goes before the zone's, at once when it
// changes, and only for that service.
func TestServiceConfig(t *testing.T) {
	a := newAgent(t)
	fill(t, a)
	configure := func(s record.Service) {
		s.Name, s.Class = "web", record.ClassCritical
		a.commit(record.Entry{Key: record.ServiceKey("web"), Value: string(s.Append(nil))})
	}
	s := serve(t, strings.Replace(zoneFile, "ttl 7", "ttl 7\n serve_stale 1h", 1), a)
	s.caughtUp()
	aaaa := func() uint32 { return s.ask("web.fluid.internal.", dns.TypeAAAA).Answer[0].Header().Ttl }
	if got := aaaa(); got != 7 {
		t.Errorf("ttl %d before, want the zone's 7", got)
	}
	configure(record.Service{TTL: 60 * time.Second, NegativeTTL: 40 * time.Second, ServeStale: time.Minute, AnswerLimit: 1})
	s.caughtUp()
	if got := aaaa(); got != 60 {
		t.Errorf("ttl %d, want the service's 60", got)
	}
	m := s.ask("web.fluid.internal.", dns.TypeA)
	if len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 4 {
		t.Errorf("answer %v, want one instance, with the smallest TTL of the set", m.Answer)
	}
	for name, want := range map[string]uint32{
		"web": 40, "web.service": 40, "red.web.service": 40, "_none._tcp.web": 40, "_web._tcp": 40, "z9.pin._zone.web": 40, "_tcp.web": 40,
		"x.web": 40, "x.10-0-1-1-8080.web": 40, "x._web._tcp": 40, "y.x._web._tcp.service": 40, "_1._none.web": 40, "_.web.service": 40,
		"checkout": 3, "x.checkout": 3, "nobody": 3, "x.nobody": 3, "service": 3, "_tcp": 3, "x.node": 3, "web.node": 3, "_nobody._tcp": 3, "x.dns": 3,
	} {
		m := s.ask(name+".fluid.internal.", dns.TypeMX)
		soa, ok := m.Ns[0].(*dns.SOA)
		if !ok || soa.Minttl != want || soa.Hdr.Ttl != want {
			t.Errorf("absence at %s: %v, want %d seconds", name, m.Ns, want)
		}
	}
	makeStale(t, s, 5*time.Minute)
	if m := s.ask("web.fluid.internal.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("past the service's serve_stale: %v, want SERVFAIL", m)
	}
	if m := s.ask("checkout.fluid.internal.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("within the zone's serve_stale: %v", m)
	}
}

// The guard's reason is in an extended error, where the client can take one.
func TestGuardNote(t *testing.T) {
	f, e := loaded(t, []record.Entry{instance(t, "web 10.0.0.1"), instance(t, "web 10.0.0.2")})
	held := *e.services.Lookup("web")
	held.Instances = append(held.Instances[:0:0], held.Instances...)
	held.Instances[0].Stale, held.Note = true, "most were lost"
	e.services.Store("web", &held)
	w := &keep{discard: silent}
	if _, err := f.ServeDNS(t.Context(), w, queryFor("web.example.org.", dns.TypeA, 1232)); err != nil {
		t.Fatal(err)
	}
	if x := ede(w.m); x == nil || x.InfoCode != dns.ExtendedErrorCodeStaleAnswer || x.ExtraText != "most were lost" || len(w.m.Answer) != 2 {
		t.Errorf("reply %v, want the guard's reason", w.m)
	}
}

// keep is a client that keeps the reply.
type keep struct {
	discard
	m *dns.Msg
}

func (k *keep) WriteMsg(m *dns.Msg) error {
	k.m = m
	return nil
}
