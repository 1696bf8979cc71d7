package fluid

import (
	"fmt"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/answer"
)

// served is a zone with what changes about it: its serial. Blocks and reloads
// that configure a zone alike share one, and with it the ready answers.
type served struct {
	*answer.Zone
	id       uint64
	staleTTL uint32
	soa      atomic.Pointer[[]dns.RR] // the SOA record of negative answers
}

// renew gives the zone a serial.
func (z *served) renew(serial uint32) {
	soa := []dns.RR{z.SOA(serial, z.NegativeTTL)}
	z.soa.Store(&soa)
}

// negative returns the SOA record for an absence that may be kept for ttl
// seconds.
func (z *served) negative(ttl uint32) []dns.RR {
	soa := *z.soa.Load()
	if ttl == z.NegativeTTL {
		return soa
	}
	return []dns.RR{z.SOA(soa[0].(*dns.SOA).Serial, ttl)}
}

// configure makes the engine follow the settings of a Corefile and serve the
// zones of its blocks.
func (e *engine) configure(p process, blocks []*block) {
	if e.member != nil {
		e.member.configure(&p)
	}
	e.answers.SetCapacity(p.Capacity)
	e.denials.SetCapacity(p.Denial)
	e.useFile(p.Snapshot)
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.Cluster != "" && e.head.Cluster != p.Cluster {
		e.head.Cluster = p.Cluster
	}
	zones := map[string]*served{}
	for _, b := range blocks {
		list := make([]*served, len(b.zones))
		for i, z := range b.zones {
			key := fmt.Sprintf("%+v %d", z.Config, b.staleTTL)
			s := zones[key]
			if s == nil {
				s = e.zones[key]
			}
			if s == nil {
				e.lastZone++
				s = &served{Zone: z, id: e.lastZone, staleTTL: b.staleTTL}
				s.renew(e.head.Serial)
				e.dirty = true
			}
			zones[key], list[i] = s, s
			if z.Forward != "" {
				e.reverse.enable(e)
			}
		}
		b.served.Store(&list)
	}
	e.zones = zones
	e.follow(blocks)
}
