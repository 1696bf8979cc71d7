package answer

import (
	"iter"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Data is what answers are made from. All methods are safe for concurrent use
// and do not block; what they return is immutable.
type Data interface {
	// Service returns the view of a service, nil if it does not exist.
	Service(name string) *catalog.Service
	// Services yields the view of every service.
	Services() iter.Seq[*catalog.Service]
	// Node returns a node, nil if it does not exist.
	Node(name string) *record.Node
	// Nodes yields every node.
	Nodes() iter.Seq[*record.Node]
	// Owner returns who has an address: the name of the node, if it is a
	// node's, and else the instances that are answered with it.
	Owner(addr netip.Addr) Owner
	// Below reports whether an address with the given prefix has an owner.
	Below(prefix netip.Prefix) bool
}

// Owner is who has an address.
type Owner struct {
	Node      string
	Instances []InstanceName
}

// InstanceName names an instance in DNS: LABEL.SERVICE.
type InstanceName struct{ Label, Service string }

// Source says what an answer was made from, and so how long it is right.
type Source uint8

// The sources of answers.
const (
	FromZone    Source = iota // the zone's settings only
	FromService               // the service that Answer.Service names
	FromAll                   // everything there is: any service or node
)

// Answer is what a zone answers to one question. It is immutable.
//
// The fields are in the order of their use: with many answers none is in the
// processor's caches, and the first two lines are all that the common answer
// needs besides its records.
type Answer struct {
	// Records is the whole RRset in canonical order (RFC 4034 section 6.3).
	// Its TTLs are equal.
	Records []dns.RR
	ipv4    []dns.A          // what Records point to, if packed
	Service *catalog.Service // that the name belongs to or would, nil if none
	size    int32            // of Records and Extra on the wire, uncompressed
	limit   int32            // instances in a drawn answer, 0: all

	Source Source
	// Missing says that the name does not exist (NXDOMAIN). An answer without
	// records is NODATA otherwise.
	Missing bool
	// SOA asks for the SOA record, which the caller has, as the answer.
	SOA bool
	// Apex says that the answer is the NS set itself, which is then not
	// repeated in the authority section.
	Apex bool
	// Costly says that making the answer looked at more than one instance, so
	// that keeping it pays.
	Costly bool
	// Arbitrary says that the question is one of endlessly many with this
	// answer, which anybody can make up: it is not to drive out others.
	Arbitrary bool
	Stale     bool // the guard kept an instance in it
	even      bool // each instance has one of Records and the same chance; sets is nil

	// Alias is the target of the CNAME in Records that the answer goes on at.
	Alias string
	sets  []set // Records and Extra by instance, best first; nil if there is only one
	// Extra is the additional section that goes with all Records.
	Extra []dns.RR
	ipv6  []dns.AAAA // what Records point to, if packed
}

// set is what one instance contributes to an answer.
type set struct {
	records, extra []dns.RR
	rank           uint32 // lower first: distance, then priority
	weight         uint16
}

// NegativeTTL returns how long the absence that the answer states may be kept,
// in seconds.
func (a *Answer) NegativeTTL(z *Zone) uint32 {
	if a.Service != nil && a.Service.Config.NegativeTTL > 0 {
		return seconds(a.Service.Config.NegativeTTL)
	}
	return z.NegativeTTL
}

// Positive reports whether the answer holds records.
func (a *Answer) Positive() bool { return len(a.Records) > 0 || a.SOA }

// missing is the answer for names of which nothing is known.
var missing = &Answer{Missing: true, Source: FromAll}

// emptyName is the answer for a name that is there for names below it.
var emptyName = &Answer{Source: FromAll}
