package answer

import (
	"iter"
	"net/netip"
	"slices"
	"strconv"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// exportTypes are the types that names under a zone have records of.
var exportTypes = [...]uint16{
	dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeSRV, dns.TypePTR, dns.TypeHTTPS, dns.TypeSVCB,
}

// Export yields the zone's RRsets for a transfer, the SOA excepted: the NS
// set and its addresses, services, single tags, instances, nodes, SRV and
// HTTPS records and DNS-SD. What depends on who asks, or combines freely (pin,
// prefer, several tags, provenance), is not part of it. Whole sets are
// yielded, whatever the answer limit.
func (z *Zone) Export(data Data) iter.Seq[[]dns.RR] {
	return func(yield func([]dns.RR) bool) {
		if !yield(z.ns) || len(z.glue) > 0 && !yield(z.glue) {
			return
		}
		if z.Forward != "" {
			z.exportReverse(data, yield)
			return
		}
		for svc := range data.Services() {
			for _, rel := range exported(svc) {
				n := parse(rel)
				if _, ok := z.static[rel]; ok {
					continue
				}
				for _, typ := range exportTypes {
					a := z.service(n, svc, z.at(rel), typ)
					if a == nil || len(a.Records) == 0 {
						continue
					}
					if !yield(a.Records) {
						return
					}
					if a.Alias != "" { // the same for every type
						break
					}
				}
			}
		}
		for node := range data.Nodes() {
			qname := z.at(node.Name + ".node")
			for _, typ := range exportTypes {
				a := z.node(name{form: formNode, label: node.Name}, qname, typ, data)
				if len(a.Records) > 0 && !yield(a.Records) {
					return
				}
			}
		}
		if a := z.browse(z.at("_services._dns-sd._udp"), dns.TypePTR, data); len(a.Records) > 0 {
			yield(a.Records)
		}
	}
}

// exported returns the relative names under which a service is transferred.
func exported(svc *catalog.Service) []string {
	s := svc.Name
	names := []string{s, s + ".service", "_" + s + "._tcp", "_" + s + "._tcp.service"}
	more := map[string]bool{}
	for i := range svc.Instances {
		in, err := svc.Instances[i].Record()
		if err != nil {
			continue
		}
		label := svc.Instances[i].Label
		names = append(names, label+"."+s)
		if in.Port != 0 {
			names = append(names, label+"._"+s+"._tcp")
		}
		for _, tag := range in.Tags {
			more[tag+"."+s+".service"] = true
		}
		for _, p := range in.Ports {
			more["_"+p.Name+"._"+p.Proto.String()+"."+s] = true
			more["_"+strconv.Itoa(int(p.Number))+"._"+p.Name+"."+s] = true
		}
	}
	for n := range more {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (z *Zone) exportReverse(data Data, yield func([]dns.RR) bool) {
	seen := map[netip.Addr]bool{}
	emit := func(addrs []netip.Addr) bool {
		for _, a := range addrs {
			name, err := dns.ReverseAddr(a.String())
			if err != nil || seen[a] || !z.Contains(name) {
				continue
			}
			seen[a] = true
			rel, _ := z.relative(name)
			if ans := z.reverse(rel, dns.TypePTR, data); len(ans.Records) > 0 && !yield(ans.Records) {
				return false
			}
		}
		return true
	}
	for node := range data.Nodes() {
		if !emit(node.Addrs) {
			return
		}
	}
	for svc := range data.Services() {
		for i := range svc.Instances {
			in, err := record.DecodeInstance(svc.Instances[i].Value)
			if err == nil && !emit(in.Addrs) {
				return
			}
		}
	}
}
