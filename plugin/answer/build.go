package answer

import (
	"cmp"
	"math"
	"slices"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

// builder collects what instances contribute to an answer of one type.
type builder struct {
	zone  *Zone
	typ   uint16
	sets  []set
	ttl   uint32
	stale bool
	seen  map[string]int // address or target → index of its set
}

// add appends one instance's records.
func (b *builder) add(m *member, records, extra []dns.RR) {
	if len(b.sets) == 0 || m.ttl < b.ttl {
		b.ttl = m.ttl
	}
	b.stale = b.stale || m.view.Stale
	rank := uint32(m.Priority)
	if !m.near {
		rank |= 1 << 16
	}
	b.sets = append(b.sets, set{records: records, extra: extra, rank: rank, weight: m.Weight})
}

// addresses adds the instance's addresses of the builder's type. An address
// that another instance brought along already is answered once (RFC 2181
// section 5), with the weight of both.
func (b *builder) addresses(m *member, owner string) {
	if b.seen == nil {
		b.seen = map[string]int{}
	}
	var rrs []dns.RR
	dup := -1
	for _, a := range m.Addrs {
		if a.Is4() != (b.typ == dns.TypeA) {
			continue
		}
		key := string(a.AsSlice())
		if i, ok := b.seen[key]; ok {
			dup = i
			continue
		}
		b.seen[key] = len(b.sets)
		rrs = append(rrs, address(owner, 0, a))
	}
	switch {
	case rrs != nil:
		b.add(m, rrs, nil)
	case dup >= 0:
		s := &b.sets[dup]
		s.weight = uint16(min(uint32(s.weight)+uint32(m.Weight), math.MaxUint16))
		b.ttl = min(b.ttl, m.ttl)
	}
}

// srv adds the instance's SRV record for a port (RFC 2782), with the
// addresses of its target.
func (b *builder) srv(m *member, owner string, port uint16) {
	target := b.zone.target(m)
	if m.Host != "" {
		if b.seen == nil {
			b.seen = map[string]int{}
		}
		if _, ok := b.seen[target]; ok {
			return
		}
		b.seen[target] = len(b.sets)
	}
	b.add(m, []dns.RR{&dns.SRV{
		Hdr: header(owner, dns.TypeSRV, 0), Priority: m.Priority, Weight: m.Weight, Port: port, Target: target,
	}}, b.glue(m, target))
}

// svcb adds the instance's SVCB or HTTPS record in ServiceMode (RFC 9460
// section 2.4.3), with the addresses of its target.
func (b *builder) svcb(m *member, owner string, typ uint16) {
	target := b.zone.target(m)
	rr := dns.SVCB{
		Hdr: header(owner, typ, 0), Target: target,
		Priority: uint16(min(uint32(m.Priority)+1, math.MaxUint16)), // 0 would be an alias
	}
	extra := b.glue(m, target)
	if typ == dns.TypeHTTPS {
		b.add(m, []dns.RR{&dns.HTTPS{SVCB: rr}}, extra)
	} else {
		b.add(m, []dns.RR{&rr}, extra)
	}
}

func (b *builder) glue(m *member, target string) []dns.RR {
	if m.Host != "" {
		return nil
	}
	return slices.Clip(addresses(target, m.ttl, m.Addrs))
}

// finish makes the answer. With a nil builder it is NODATA.
func (z *Zone) finish(svc *catalog.Service, b *builder) *Answer {
	a := &Answer{Source: FromService, Service: svc, limit: int32(z.AnswerLimit), Costly: len(svc.Instances) > 1}
	if svc.Config.AnswerLimit > 0 {
		a.limit = int32(svc.Config.AnswerLimit)
	}
	if b == nil || len(b.sets) == 0 {
		a.Costly = a.Costly && b != nil
		return a
	}
	a.Costly = true
	a.Stale = b.stale
	slices.SortStableFunc(b.sets, func(x, y set) int { return cmp.Compare(x.rank, y.rank) })
	var records, extra int
	for _, s := range b.sets {
		setTTL(s.records, b.ttl) // an RRset has one TTL (RFC 2181 section 5.2)
		records += len(s.records)
		extra += len(s.extra)
	}
	a.Records, a.Extra = make([]dns.RR, 0, records), make([]dns.RR, 0, extra)
	for i := range b.sets {
		s := &b.sets[i]
		s.records, s.extra = slices.Clip(s.records), slices.Clip(s.extra)
		a.Records, a.Extra = append(a.Records, s.records...), append(a.Extra, s.extra...)
	}
	if len(b.sets) > 1 {
		if a.even = even(b.sets); !a.even {
			a.sets = b.sets
		}
	}
	sortCanonical(a.Records)
	a.Records, a.Extra = slices.Clip(a.Records), slices.Clip(a.Extra)
	a.measure()
	a.pack()
	return a
}

// measure computes the size of the answer's sections.
func (a *Answer) measure() {
	a.size = int32(size(a.Records) + size(a.Extra))
}

// size returns the length of records on the wire without compression.
func size(rrs []dns.RR) int {
	n := 0
	for _, rr := range rrs {
		n += dns.Len(rr)
	}
	return n
}
