package answer

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/record"
)

func header(owner string, typ uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

func address(owner string, ttl uint32, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: header(owner, dns.TypeA, ttl), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, ttl), AAAA: a.AsSlice()}
}

func addresses(owner string, ttl uint32, addrs []netip.Addr) []dns.RR {
	rrs := make([]dns.RR, 0, len(addrs))
	for _, a := range addrs {
		rrs = append(rrs, address(owner, ttl, a))
	}
	return rrs
}

func ofType(rrs []dns.RR, typ uint16) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		if rr.Header().Rrtype == typ {
			out = append(out, rr)
		}
	}
	return out
}

// txt makes one TXT record of key and value pairs, one empty string if there
// are none (RFC 6763 section 6.1). A pair that is longer than a character
// string may be goes on in the next one.
func txt(owner string, ttl uint32, pairs []record.Pair) *dns.TXT {
	rr := &dns.TXT{Hdr: header(owner, dns.TypeTXT, ttl)}
	for _, p := range pairs {
		for s := p.Key + "=" + p.Value; s != ""; {
			n := min(len(s), maxString)
			rr.Txt = append(rr.Txt, escape(s[:n]))
			s = s[n:]
		}
	}
	if rr.Txt == nil {
		rr.Txt = []string{""}
	}
	return rr
}

// Text returns a TXT record with TTL 0 that holds one line of text.
func Text(owner, line string) dns.RR {
	rr := &dns.TXT{Hdr: header(owner, dns.TypeTXT, 0)}
	for n := 0; len(line) > 0; line = line[n:] {
		n = min(len(line), maxString)
		rr.Txt = append(rr.Txt, escape(line[:n]))
	}
	return rr
}

// maxString is the longest character string (RFC 1035 section 3.3).
const maxString = 255

// escape returns s in the presentation form that the dns package keeps
// character strings in.
func escape(s string) string {
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '"' && c != '\\' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case plain(c):
			b.WriteByte(c)
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte('\\')
			d := strconv.Itoa(int(c))
			b.WriteString("000"[len(d):])
			b.WriteString(d)
		}
	}
	return b.String()
}

// sortCanonical sorts records of one owner and type by their wire form (RFC
// 4034 section 6.3).
func sortCanonical(rrs []dns.RR) {
	if len(rrs) < 2 {
		return
	}
	wire := make(map[dns.RR][]byte, len(rrs))
	for _, rr := range rrs {
		buf := make([]byte, dns.Len(rr)+1)
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			n = 0 // cannot be sent either; any place will do
		}
		head := len(rr.Header().Name) + 1 + 10 // name, type, class, TTL, length
		wire[rr] = buf[min(head, n):n]
	}
	slices.SortFunc(rrs, func(a, b dns.RR) int { return bytes.Compare(wire[a], wire[b]) })
}

func setTTL(rrs []dns.RR, ttl uint32) {
	for _, rr := range rrs {
		rr.Header().Ttl = ttl
	}
}
