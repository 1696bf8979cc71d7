package fluid

import (
	"reflect"
	"testing"

	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// A reply starts as the dns package's own, and appending to a section of it
// touches no other.
func TestNewReply(t *testing.T) {
	for _, edns := range []uint16{0, 1232} {
		q := queryFor("WeB.example.org.", dns.TypeSRV, edns)
		q.CheckingDisabled = true
		want := new(dns.Msg).SetReply(q)
		want.Authoritative = true
		got := newReply(q)
		if len(got.Extra) != 0 {
			t.Fatalf("%d records", len(got.Extra))
		}
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		got.Extra, want.Extra = append(got.Extra, opt), append(want.Extra, opt)
		if !reflect.DeepEqual(&got.Msg, want) {
			t.Errorf("got %v, want %v", &got.Msg, want)
		}
		got.Question[0].Name = "x."
		if q.Question[0].Name != "WeB.example.org." {
			t.Error("the reply shares the query's question")
		}
	}
}

// A plain name is what CoreDNS makes of it.
func TestPlain(t *testing.T) {
	for _, name := range []string{".", "a.", "web-1._tcp.example.org.", "A.", "a b.", `a\.b.`, `\097.`, "é.", "a\x00.", "a.b@.", `"`} {
		state := request.Request{Req: queryFor(name, dns.TypeA, 0)}
		if plain(name) && state.Name() != name {
			t.Errorf("%q is plain, but CoreDNS writes %q", name, state.Name())
		}
	}
	for _, name := range []string{".", "web-1._tcp.example.org."} {
		if !plain(name) {
			t.Errorf("%q is not plain", name)
		}
	}
	if plain("Web.") || plain(`\097.`) {
		t.Error("upper case or an escape is plain")
	}
}
