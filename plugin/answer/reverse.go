package answer

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	reverse4 = "in-addr.arpa."
	reverse6 = "ip6.arpa."
	// maxPointers bounds the PTR records of one address.
	maxPointers = 16
)

// IsReverse reports whether names in the zone stand for addresses.
func IsReverse(origin string) bool {
	return dns.IsSubDomain(reverse4, origin) || dns.IsSubDomain(reverse6, origin)
}

// ParseReverse returns the addresses that a name in in-addr.arpa (RFC 1035
// section 3.5) or ip6.arpa (RFC 3596 section 2.5) stands for: one, or those
// that the names below it stand for.
func ParseReverse(name string) (netip.Prefix, bool) {
	if rest, ok := strings.CutSuffix("."+name, "."+reverse4); ok {
		return parseReverse(rest, 8, 10, netip.IPv4Unspecified().AsSlice())
	}
	if rest, ok := strings.CutSuffix("."+name, "."+reverse6); ok {
		return parseReverse(rest, 4, 16, netip.IPv6Unspecified().AsSlice())
	}
	return netip.Prefix{}, false
}

// parseReverse reads labels of some bits each, written in the base, from the
// right into addr.
func parseReverse(rest string, bits, base int, addr []byte) (netip.Prefix, bool) {
	n := 0
	for rest != "" {
		dot := strings.LastIndexByte(rest, '.')
		label := rest[dot+1:]
		rest = rest[:dot]
		v, err := strconv.ParseUint(label, base, 8)
		if err != nil || n == len(addr)*8 || len(label) > 1 && label[0] == '0' || v>>bits != 0 {
			return netip.Prefix{}, false
		}
		addr[n/8] |= byte(v) << (8 - bits - n%8)
		n += bits
	}
	a, _ := netip.AddrFromSlice(addr)
	return netip.PrefixFrom(a, n), true
}

// reverse answers in a reverse zone.
func (z *Zone) reverse(rel string, qtype uint16, data Data) *Answer {
	if rel == "" {
		return z.atApex(qtype)
	}
	qname := z.at(rel)
	prefix, ok := ParseReverse(qname)
	if !ok {
		return missing
	}
	if !prefix.IsSingleIP() {
		if data.Below(prefix) {
			return emptyName
		}
		return missing
	}
	names := z.pointers(data.Owner(prefix.Addr()))
	if len(names) == 0 {
		return missing
	}
	a := &Answer{Source: FromAll}
	if qtype == dns.TypePTR || qtype == dns.TypeANY {
		for _, n := range names {
			a.Records = append(a.Records, &dns.PTR{Hdr: header(qname, dns.TypePTR, z.TTL), Ptr: n})
		}
		sortCanonical(a.Records)
		a.Records = slices.Clip(a.Records)
		a.measure()
	}
	return a
}

// pointers returns the names an address is answered with: the node's if it is
// a node's address, else the instances', in order.
func (z *Zone) pointers(o Owner) []string {
	under := func(rel string) string { return rel + "." + strings.TrimPrefix(z.Forward, ".") }
	if o.Node != "" {
		return []string{under(o.Node + ".node")}
	}
	var names []string
	for _, in := range o.Instances {
		names = append(names, under(in.Label+"."+in.Service))
	}
	slices.Sort(names)
	return names[:min(len(names), maxPointers)]
}
