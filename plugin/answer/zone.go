package answer

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// NameServer is one of the servers that a zone names at its apex.
type NameServer struct {
	Name  string // fully qualified, lower case
	Addrs []netip.Addr
}

// Config is what an operator says about a zone.
type Config struct {
	Origin      string // fully qualified, lower case
	TTL         uint32 // seconds, of records without their own
	NegativeTTL uint32 // seconds
	AnswerLimit int    // instances in one answer; 0: all
	Servers     []NameServer
	// Forward is the origin that the names in a reverse zone's answers lie
	// in; empty for a forward zone.
	Forward string
}

// Timers of the SOA record, in seconds.
const (
	soaRefresh = 60
	soaRetry   = 10
	soaExpire  = 86400
)

// Zone answers for one zone. It is immutable.
type Zone struct {
	Config
	apex   string              // Origin without its final dot, with a leading one: ".fluid.internal"
	ns     []dns.RR            // NS set of the apex
	nsSize int                 // its length on the wire, uncompressed
	glue   []dns.RR            // addresses of the servers inside the zone
	static map[string][]dns.RR // relative name of a server inside the zone → its addresses
	empty  map[string]bool     // names above those
}

// NewZone prepares a zone. The config is not changed afterwards.
func NewZone(cfg Config) *Zone {
	z := &Zone{Config: cfg, apex: "." + strings.TrimSuffix(cfg.Origin, "."), static: map[string][]dns.RR{}, empty: map[string]bool{}}
	if cfg.Origin == "." {
		z.apex = ""
	}
	for _, s := range cfg.Servers {
		ns := &dns.NS{Hdr: header(cfg.Origin, dns.TypeNS, cfg.TTL), Ns: s.Name}
		z.ns = append(z.ns, ns)
		z.nsSize += dns.Len(ns)
		rel, in := z.relative(s.Name)
		if !in {
			continue
		}
		rrs := addresses(s.Name, cfg.TTL, s.Addrs)
		z.glue = append(z.glue, rrs...)
		z.static[rel] = slices.Clip(rrs)
		for _, above, more := strings.Cut(rel, "."); more; _, above, more = strings.Cut(above, ".") {
			z.empty[above] = true
		}
	}
	z.ns, z.glue = slices.Clip(z.ns), slices.Clip(z.glue)
	return z
}

// SOA returns the apex's SOA record with the given serial, for an answer, or
// for the authority section of a negative answer that may be kept for minimum
// seconds (RFC 2308 section 3).
func (z *Zone) SOA(serial, minimum uint32) *dns.SOA {
	return &dns.SOA{
		Hdr: header(z.Origin, dns.TypeSOA, minimum), Ns: z.primary(), Mbox: z.at("hostmaster"),
		Serial: serial, Refresh: soaRefresh, Retry: soaRetry, Expire: soaExpire, Minttl: minimum,
	}
}

func (z *Zone) primary() string {
	if len(z.Servers) > 0 {
		return z.Servers[0].Name
	}
	return z.at("ns.dns")
}

// NS returns the apex's NS set.
func (z *Zone) NS() []dns.RR { return z.ns }

// Contains reports whether a fully qualified lower-case name is the apex or
// below it.
func (z *Zone) Contains(name string) bool {
	_, ok := z.relative(name)
	return ok
}

// relative returns the part of a name left of the origin, "" for the apex.
func (z *Zone) relative(name string) (string, bool) {
	if z.Origin == "." {
		return strings.TrimSuffix(name, "."), true
	}
	n := len(name) - len(z.Origin)
	switch {
	case n < 0 || name[n:] != z.Origin:
		return "", false
	case n == 0:
		return "", true
	case name[n-1] != '.' || escaped(name, n-1):
		return "", false
	}
	return name[:n-1], true
}

// escaped reports whether the byte at i is preceded by an odd number of
// backslashes.
func escaped(name string, i int) bool {
	odd := false
	for i--; i >= 0 && name[i] == '\\'; i-- {
		odd = !odd
	}
	return odd
}

// at returns the fully qualified form of a name relative to the origin.
func (z *Zone) at(rel string) string {
	if z.Origin == "." {
		return rel + "."
	}
	return rel + "." + z.Origin
}
