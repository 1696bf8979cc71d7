package answer

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Answer returns what the zone answers to a question for a fully qualified
// lower-case name in it and a type, from the data.
func (z *Zone) Answer(qname string, qtype uint16, data Data) *Answer {
	rel, ok := z.relative(qname)
	if !ok {
		return missing
	}
	if rrs, ok := z.static[rel]; ok {
		return z.fixed(rrs, qtype)
	}
	if z.Forward != "" {
		return z.reverse(rel, qtype, data)
	}
	n := parse(rel)
	switch n.form {
	case formApex:
		return z.atApex(qtype)
	case formNode:
		return z.node(n, qname, qtype, data)
	case formBrowse:
		return z.browse(qname, qtype, data)
	case formAnyService:
		for range data.Services() {
			return emptyName
		}
	case formAnyNode:
		for range data.Nodes() {
			return emptyName
		}
	case formNone:
	default:
		if svc := data.Service(n.service); svc != nil {
			if a := z.service(n, svc, qname, qtype); a != nil {
				return a
			}
		}
	}
	if z.empty[rel] {
		return &Answer{Source: FromZone}
	}
	if svc := data.Service(serviceIn(rel)); svc != nil {
		// The absence is as certain as the service says that its names are.
		return &Answer{Missing: true, Source: FromService, Service: svc}
	}
	return missing
}

func (z *Zone) fixed(rrs []dns.RR, qtype uint16) *Answer {
	a := &Answer{Records: slices.Clip(ofType(rrs, qtype)), Source: FromZone}
	a.measure()
	return a
}

func (z *Zone) atApex(qtype uint16) *Answer {
	switch qtype {
	case dns.TypeSOA, dns.TypeANY:
		return &Answer{SOA: true, Source: FromZone}
	case dns.TypeNS:
		a := &Answer{Records: z.ns, Extra: z.glue, Apex: true, Source: FromZone}
		a.measure()
		return a
	}
	return &Answer{Source: FromZone}
}

// member is an instance on its way into an answer.
type member struct {
	record.Instance
	view *catalog.Instance
	ttl  uint32
	near bool // in the preferred failure domain
}

// owner returns the name of the instance under the zone.
func (z *Zone) owner(m *member) string { return z.at(m.view.Label + "." + m.Service) }

// target returns the name that points to the instance.
func (z *Zone) target(m *member) string {
	if m.Host != "" {
		return m.Host
	}
	return z.owner(m)
}

// members decodes the instances of a service that keep accepts. A record that
// does not decode is left out; the catalog has counted it.
func (z *Zone) members(svc *catalog.Service, keep func(*record.Instance) bool) []member {
	out := make([]member, 0, len(svc.Instances))
	for i := range svc.Instances {
		m := member{view: &svc.Instances[i]}
		var err error
		if m.Instance, err = m.view.Record(); err != nil || !keep(&m.Instance) {
			continue
		}
		m.ttl = z.TTL
		if ttl := cmp.Or(m.TTL, svc.Config.TTL); ttl > 0 {
			m.ttl = seconds(ttl)
		}
		out = append(out, m)
	}
	return out
}

// unweighted drops the instances of weight 0, unless all are.
func unweighted(ms []member) []member {
	weighs := func(m member) bool { return m.Weight > 0 }
	if !slices.ContainsFunc(ms, weighs) {
		return ms
	}
	return slices.DeleteFunc(ms, func(m member) bool { return !weighs(m) })
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }

func all(*record.Instance) bool { return true }

// service answers for a name that belongs to an existing service. It returns
// nil if the name itself does not exist.
func (z *Zone) service(n name, svc *catalog.Service, qname string, qtype uint16) *Answer {
	switch n.form {
	case formEmpty:
		return z.finish(svc, nil)
	case formService:
		return z.some(svc, all, qname, qtype)
	case formTagged:
		a := z.some(svc, func(in *record.Instance) bool {
			return !slices.ContainsFunc(n.tags, func(tag string) bool { return !in.HasTag(tag) })
		}, qname, qtype)
		a.Arbitrary = a.Arbitrary || len(n.tags) > 2 // in any order, and again
		return a
	case formPin:
		return z.some(svc, func(in *record.Instance) bool { return in.Zone == n.label }, qname, qtype)
	case formPrefer:
		return z.prefer(n, svc, qname, qtype)
	case formInstance:
		return z.instance(n, svc, qname, qtype)
	case formSRV:
		return z.listing(n, svc, qname, qtype)
	case formListed:
		return z.listed(n, svc, qname, qtype)
	case formPort:
		return z.port(n, svc, qname, qtype)
	case formScheme, formAnyScheme:
		return z.scheme(n, svc, qname, qtype)
	}
	return nil
}

// some answers at a name that stands for some of a service's
// instances.
func (z *Zone) some(svc *catalog.Service, keep func(*record.Instance) bool, qname string, qtype uint16) *Answer {
	return z.group(svc, unweighted(z.members(svc, keep)), qname, qtype)
}

// prefer answers with every instance, those of one failure domain first.
func (z *Zone) prefer(n name, svc *catalog.Service, qname string, qtype uint16) *Answer {
	ms := unweighted(z.members(svc, all))
	known := false
	for i := range ms {
		ms[i].near = ms[i].Zone == n.label
		known = known || ms[i].near
	}
	a := z.group(svc, ms, qname, qtype)
	a.Arbitrary = a.Arbitrary || !known
	return a
}

// group answers with the addresses, ports or alias of the given instances.
func (z *Zone) group(svc *catalog.Service, ms []member, qname string, qtype uint16) *Answer {
	if len(ms) == 1 && ms[0].Host != "" {
		return z.alias(svc, &ms[0], qname, qtype)
	}
	if qtype == dns.TypeANY { // one RRset is enough (RFC 8482 section 4.1)
		for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			if a := z.group(svc, ms, qname, typ); a.Positive() {
				return a
			}
		}
	}
	b := builder{zone: z, typ: qtype}
	for i := range ms {
		m := &ms[i]
		switch qtype {
		case dns.TypeA, dns.TypeAAAA:
			b.addresses(m, qname)
		case dns.TypeSRV:
			if m.Port != 0 {
				b.srv(m, qname, m.Port)
			}
		case dns.TypeHTTPS:
			if p, ok := m.PortNamed("https"); ok && p.Number == httpsPort {
				b.svcb(m, qname, qtype)
			}
		}
	}
	return z.finish(svc, &b)
}

// alias answers with a CNAME, whatever the type.
func (z *Zone) alias(svc *catalog.Service, m *member, qname string, qtype uint16) *Answer {
	cname := &dns.CNAME{Hdr: header(qname, dns.TypeCNAME, m.ttl), Target: m.Host}
	b := builder{zone: z, typ: dns.TypeCNAME}
	b.add(m, []dns.RR{cname}, nil)
	a := z.finish(svc, &b)
	a.Alias = m.Host
	a.Arbitrary = qtype != dns.TypeA && qtype != dns.TypeAAAA && qtype != dns.TypeHTTPS
	return a
}

// instance answers at LABEL.SERVICE.
func (z *Zone) instance(n name, svc *catalog.Service, qname string, qtype uint16) *Answer {
	m, ok := z.find(svc, n.label)
	if !ok {
		return nil
	}
	switch {
	case m.Host != "":
		return z.alias(svc, &m, qname, qtype)
	case qtype == dns.TypeTXT:
		b := builder{zone: z, typ: qtype}
		b.add(&m, []dns.RR{txt(qname, m.ttl, m.Meta)}, nil)
		return z.finish(svc, &b)
	case qtype == dns.TypeA, qtype == dns.TypeAAAA, qtype == dns.TypeANY:
		return z.group(svc, []member{m}, qname, qtype)
	}
	return z.finish(svc, nil)
}

// find returns the instance with a host label.
func (z *Zone) find(svc *catalog.Service, label string) (member, bool) {
	i, ok := slices.BinarySearchFunc(svc.Instances, label, func(in catalog.Instance, l string) int {
		return strings.Compare(in.Label, l)
	})
	if !ok {
		return member{}, false
	}
	one := *svc
	one.Instances = svc.Instances[i : i+1]
	ms := z.members(&one, all)
	if len(ms) == 0 {
		return member{}, false
	}
	return ms[0], true
}

// listing answers at _SERVICE._tcp: SRV for clients (RFC 2782), PTR for those
// that browse (RFC 6763 section 4.1).
func (z *Zone) listing(n name, svc *catalog.Service, qname string, qtype uint16) *Answer {
	b := builder{zone: z, typ: qtype}
	switch qtype {
	case dns.TypeSRV, dns.TypePTR, dns.TypeANY:
	default:
		return z.finish(svc, nil)
	}
	if qtype == dns.TypeANY {
		b.typ = dns.TypeSRV
	}
	ms := unweighted(z.members(svc, func(in *record.Instance) bool { return in.Port != 0 }))
	for i := range ms {
		if b.typ == dns.TypePTR {
			ptr := z.at(ms[i].view.Label + "._" + n.service + "._tcp")
			b.add(&ms[i], []dns.RR{&dns.PTR{Hdr: header(qname, dns.TypePTR, ms[i].ttl), Ptr: ptr}}, nil)
		} else {
			b.srv(&ms[i], qname, ms[i].Port)
		}
	}
	return z.finish(svc, &b)
}

// listed answers at LABEL._SERVICE._tcp.
func (z *Zone) listed(n name, svc *catalog.Service, qname string, qtype uint16) *Answer {
	m, ok := z.find(svc, n.label)
	if !ok || m.Port == 0 {
		return nil
	}
	b := builder{zone: z, typ: qtype}
	switch qtype {
	case dns.TypeSRV, dns.TypeANY:
		b.typ = dns.TypeSRV
		b.srv(&m, qname, m.Port)
	case dns.TypeTXT:
		b.add(&m, []dns.RR{txt(qname, m.ttl, m.Meta)}, nil)
	}
	return z.finish(svc, &b)
}

// port answers at _PORT._PROTO.SERVICE.
func (z *Zone) port(n name, svc *catalog.Service, qname string, qtype uint16) *Answer {
	if qtype != dns.TypeSRV && qtype != dns.TypeANY {
		return z.finish(svc, nil)
	}
	b := builder{zone: z, typ: dns.TypeSRV}
	ms := unweighted(z.members(svc, func(in *record.Instance) bool {
		p, ok := in.PortNamed(n.label)
		return ok && p.Proto == n.proto
	}))
	for i := range ms {
		p, _ := ms[i].PortNamed(n.label)
		b.srv(&ms[i], qname, p.Number)
	}
	return z.finish(svc, &b)
}

const httpsPort = 443

// scheme answers at _NUMBER._SCHEME.SERVICE (RFC 9460 section 2.3), which
// exists where an instance has a port of that name and number.
func (z *Zone) scheme(n name, svc *catalog.Service, qname string, qtype uint16) *Answer {
	typ := dns.TypeSVCB
	if n.label == "https" {
		typ = dns.TypeHTTPS
	}
	ms := unweighted(z.members(svc, func(in *record.Instance) bool {
		p, ok := in.PortNamed(n.label)
		if typ == dns.TypeHTTPS && p.Number == httpsPort {
			return false // at the service's own name
		}
		return ok && (n.form == formAnyScheme || p.Number == n.number)
	}))
	if len(ms) == 0 {
		return nil
	}
	if n.form == formAnyScheme || qtype != typ && qtype != dns.TypeANY {
		return z.finish(svc, nil)
	}
	b := builder{zone: z, typ: typ}
	for i := range ms {
		b.svcb(&ms[i], qname, typ)
	}
	return z.finish(svc, &b)
}

// node answers at NODE.node.
func (z *Zone) node(n name, qname string, qtype uint16, data Data) *Answer {
	node := data.Node(n.label)
	if node == nil {
		return missing
	}
	rrs := addresses(qname, z.TTL, node.Addrs)
	a := &Answer{Source: FromAll, Costly: true}
	switch qtype {
	case dns.TypeTXT:
		pairs := []record.Pair{{Key: "id", Value: node.ID}, {Key: "version", Value: node.Version}, {Key: "zone", Value: node.Zone}}
		a.Records = []dns.RR{txt(qname, z.TTL, slices.DeleteFunc(pairs, func(p record.Pair) bool { return p.Value == "" }))}
	case dns.TypeANY:
		if a.Records = ofType(rrs, dns.TypeA); a.Records == nil {
			a.Records = ofType(rrs, dns.TypeAAAA)
		}
	default:
		a.Records = ofType(rrs, qtype)
	}
	sortCanonical(a.Records)
	a.Records = slices.Clip(a.Records)
	a.measure()
	return a
}

// maxListed bounds the records of the browse answer: more do not fit the
// largest message.
const maxListed = 4000

// browse answers at _services._dns-sd._udp with the services that can be
// browsed (RFC 6763 section 9).
func (z *Zone) browse(qname string, qtype uint16, data Data) *Answer {
	var names []string
	some := false
	for svc := range data.Services() {
		some = true
		if qtype != dns.TypePTR && qtype != dns.TypeANY || len(names) >= maxListed {
			break
		}
		if z.browsable(svc) {
			names = append(names, svc.Name)
		}
	}
	if !some {
		return missing
	}
	a := &Answer{Source: FromAll, Costly: true}
	for _, s := range names {
		a.Records = append(a.Records, &dns.PTR{Hdr: header(qname, dns.TypePTR, z.TTL), Ptr: z.at("_" + s + "._tcp")})
	}
	sortCanonical(a.Records)
	a.Records = slices.Clip(a.Records)
	a.measure()
	return a
}

func (z *Zone) browsable(svc *catalog.Service) bool {
	for i := range svc.Instances {
		if in, err := svc.Instances[i].Record(); err == nil && in.Port != 0 {
			return true
		}
	}
	return false
}
