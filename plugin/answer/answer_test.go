package answer

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// memory is data with one service and one node.
type memory struct {
	svc  *catalog.Service
	node *record.Node
}

func (m memory) Service(name string) *catalog.Service {
	if m.svc != nil && m.svc.Name == name {
		return m.svc
	}
	return nil
}

func (m memory) Services() iter.Seq[*catalog.Service] {
	return func(yield func(*catalog.Service) bool) {
		if m.svc != nil {
			yield(m.svc)
		}
	}
}

func (m memory) Node(name string) *record.Node {
	if m.node != nil && m.node.Name == name {
		return m.node
	}
	return nil
}

func (m memory) Nodes() iter.Seq[*record.Node] {
	return func(yield func(*record.Node) bool) {
		if m.node != nil {
			yield(m.node)
		}
	}
}

func (m memory) Owner(a netip.Addr) Owner {
	if m.node != nil && slices.Contains(m.node.Addrs, a) {
		return Owner{Node: m.node.Name}
	}
	return Owner{}
}

func (m memory) Below(p netip.Prefix) bool { return m.node != nil && p.Contains(m.node.Addrs[0]) }

// A service without an answered instance is there, and empty.
func TestEmptyService(t *testing.T) {
	z := NewZone(Config{Origin: "z.", TTL: 5, NegativeTTL: 2})
	data := memory{svc: &catalog.Service{Name: "web", Total: 3}}
	for _, rel := range []string{"web", "web.service", "_web._tcp", "_http._tcp.web", "a.pin._zone.web", "tag.web.service"} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeTXT, dns.TypeANY} {
			if a := z.Answer(rel+".z.", typ, data); a.Missing || a.Positive() {
				t.Errorf("%s %s: %+v, want NODATA", rel, dns.TypeToString[typ], a)
			}
		}
	}
	if a := z.Answer("one.web.z.", dns.TypeA, data); !a.Missing {
		t.Errorf("an instance of it: %+v, want NXDOMAIN", a)
	}
}

func TestNode(t *testing.T) {
	z := NewZone(Config{Origin: "z.", TTL: 5})
	r := NewZone(Config{Origin: "10.in-addr.arpa.", TTL: 5, Forward: "z."})
	data := memory{node: &record.Node{ID: "u1", Name: "n1", Addrs: addrs("10.0.0.1", "fd00::1"), Zone: "z1", Version: "v1"}}
	tests := []struct {
		zone  *Zone
		qname string
		typ   uint16
		want  string
	}{
		{z, "n1.node.z.", dns.TypeA, "n1.node.z.\t5\tIN\tA\t10.0.0.1"},
		{z, "n1.node.z.", dns.TypeAAAA, "n1.node.z.\t5\tIN\tAAAA\tfd00::1"},
		{z, "n1.node.z.", dns.TypeTXT, "n1.node.z.\t5\tIN\tTXT\t\"id=u1\" \"version=v1\" \"zone=z1\""},
		{z, "n1.node.z.", dns.TypeMX, ""},
		{z, "node.z.", dns.TypeA, ""},
		{z, "n2.node.z.", dns.TypeA, "NXDOMAIN"},
		{z, "x.n1.node.z.", dns.TypeA, "NXDOMAIN"},
		{r, "1.0.0.10.in-addr.arpa.", dns.TypePTR, "1.0.0.10.in-addr.arpa.\t5\tIN\tPTR\tn1.node.z."},
		{r, "0.10.in-addr.arpa.", dns.TypePTR, ""},
	}
	for _, tc := range tests {
		a := tc.zone.Answer(tc.qname, tc.typ, data)
		got := ""
		for _, rr := range a.Records {
			got += rr.String()
		}
		if a.Missing {
			got = "NXDOMAIN"
		}
		if got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.qname, dns.TypeToString[tc.typ], got, tc.want)
		}
	}
}

// The same address of another origin, and a name that only looks like one
// below it, are not the zone's.
func TestContains(t *testing.T) {
	z := NewZone(Config{Origin: "fluid.internal."})
	for name, want := range map[string]bool{
		"fluid.internal.": true, "a.fluid.internal.": true, "notfluid.internal.": false, "internal.": false, ".": false,
		`a\.fluid.internal.`: false, `a\\.fluid.internal.`: true,
	} {
		if got := z.Contains(name); got != want {
			t.Errorf("Contains(%q) = %v, want %v", name, got, want)
		}
	}
	if root := NewZone(Config{Origin: "."}); !root.Contains("a.b.") || !root.Contains(".") {
		t.Error("the root zone does not hold everything")
	}
}

// TXT character strings survive whatever bytes metadata holds.
func TestText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := string(rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "value"))
		rr := txt("a.z.", 5, []record.Pair{{Key: "k", Value: value}})
		buf := make([]byte, 2000)
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		got, wire := "", buf[:n]
		for at := n - int(rr.Hdr.Rdlength); at < n; {
			size := int(wire[at])
			got += string(wire[at+1 : at+1+size])
			at += 1 + size
		}
		if got != "k="+value {
			t.Fatalf("%q came out as %q", "k="+value, got)
		}
	})
}

func TestParseReverse(t *testing.T) {
	tests := []struct{ name, want string }{
		{"9.0.0.10.in-addr.arpa.", "10.0.0.9/32"},
		{"10.in-addr.arpa.", "10.0.0.0/8"},
		{"in-addr.arpa.", "0.0.0.0/0"},
		{"1.0.in-addr.arpa.", "0.1.0.0/16"},
		{"256.in-addr.arpa.", ""},
		{"01.in-addr.arpa.", ""},
		{"x.in-addr.arpa.", ""},
		{"1.2.3.4.5.in-addr.arpa.", ""},
		{"0.0.d.f.ip6.arpa.", "fd00::/16"},
		{"10.ip6.arpa.", ""},
		{"G.ip6.arpa.", ""},
		{"example.org.", ""},
	}
	for _, tc := range tests {
		p, ok := ParseReverse(tc.name)
		got := ""
		if ok {
			got = p.String()
		}
		if got != tc.want {
			t.Errorf("ParseReverse(%q) = %q, want %q", tc.name, got, tc.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))
		name, err := dns.ReverseAddr(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := ParseReverse(name); a.Unmap() == a && (!ok || p.Addr() != a || !p.IsSingleIP()) {
			t.Fatalf("ParseReverse(%q) = %v, %v, want %v", name, p, ok, a)
		}
	})
}

// message returns a reply with n instances, their addresses in additional.
func message(t *testing.T, n int) (*dns.Msg, *Zone, *Answer) {
	t.Helper()
	weights := make([]uint16, n)
	for i := range weights {
		weights[i] = 1
	}
	z := NewZone(Config{Origin: "z.example.", TTL: 5, Servers: []NameServer{{Name: "ns.dns.z.example."}}})
	a := z.service(name{form: formService, service: "web"}, service(weights, nil), "web.z.example.", dns.TypeSRV)
	m := new(dns.Msg).SetQuestion("web.z.example.", dns.TypeSRV)
	m.Response = true
	m.Answer, m.Extra = a.Draw(nil)
	m.Ns = z.NS()
	return m, z, a
}

// TestFit cuts at every size, and checks what goes first and that the rest
// fits.
func TestFit(t *testing.T) {
	const n, reserve = 8, 11
	whole, z, a := message(t, n)
	full := func() int { m := whole.Copy(); m.Compress = true; return m.Len() }()
	for limit := 100; limit < 1000; limit++ {
		for _, do := range []bool{false, true} {
			m, _, _ := message(t, n)
			cut := Fit(m, reserve, limit, do)
			m.Compress = true
			switch size := m.Len() + reserve; {
			case size > limit && len(m.Answer) > 0:
				t.Fatalf("limit %d: %d bytes with %d records", limit, size, len(m.Answer))
			case cut != m.Truncated, cut != (len(m.Answer) < n):
				t.Fatalf("limit %d: cut %v, TC %v, %d records", limit, cut, m.Truncated, len(m.Answer))
			case cut && (len(m.Extra) > 0 || len(m.Ns) > 0):
				t.Fatalf("limit %d: records were cut before the other sections", limit)
			case cut && do && len(m.Answer) > 0:
				t.Fatalf("limit %d: a part of a set that signatures cover", limit)
			case !cut && len(m.Extra) < n && limit >= full+reserve:
				t.Fatalf("limit %d: cut although %d bytes are enough", limit, full+reserve)
			case a.Fits(z, len("web.z.example."), reserve, limit) && len(m.Extra) < n:
				t.Fatalf("limit %d: Fits, and yet it was cut", limit)
			}
		}
	}
}

// Additional records stay or go by whole RRsets.
func TestFitKeepsSetsWhole(t *testing.T) {
	m := new(dns.Msg).SetQuestion("web.z.", dns.TypeSRV)
	m.Answer = []dns.RR{&dns.SRV{Hdr: header("web.z.", dns.TypeSRV, 5), Port: 80, Target: "i.web.z."}}
	m.Extra = addresses("i.web.z.", 5, addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"))
	for limit := 20; limit < 200; limit++ {
		c := m.Copy()
		Fit(c, 0, limit, false)
		if n := len(c.Extra); n != 0 && n != 3 && n != 4 {
			t.Errorf("limit %d: %d records of two sets", limit, n)
		}
	}
}

// FuzzParse looks for names that make parse or an answer go wrong.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "web", "a.b.web.service", "_http._tcp.web", "_8443._https.web", "z.pin._zone.web", "_services._dns-sd._udp", "n.node", "_", "._.", `\.`} {
		f.Add(s)
	}
	z := NewZone(Config{Origin: "z.", TTL: 5})
	data := memory{svc: service([]uint16{1, 2}, nil), node: &record.Node{Name: "n"}}
	f.Fuzz(func(t *testing.T, rel string) {
		qname := strings.ToLower(rel) + ".z."
		for _, typ := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeANY, dns.TypePTR, dns.TypeTXT} {
			a := z.Answer(qname, typ, data)
			if a.Missing && a.Positive() {
				t.Errorf("%q: data at a name that does not exist", qname)
			}
			if len(a.Records) != cap(a.Records) || len(a.Extra) != cap(a.Extra) {
				t.Errorf("%q: a section has room for others to write into", qname)
			}
		}
	})
}
