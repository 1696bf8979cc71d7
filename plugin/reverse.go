package fluid

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fluid-sd/fluid/plugin/answer"
	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
	"github.com/fluid-sd/fluid/plugin/table"
)

// reverseIndex finds who has an address, and whether anybody has one below a
// prefix. It is kept only once a reverse zone is served, because it costs
// memory for every address there is.
type reverseIndex struct {
	on atomic.Pointer[reverseTables]
}

type reverseTables struct {
	owners *table.Map[answer.Owner] // by the bytes of the address
	above  *table.Map[struct{}]     // prefixes that are not empty, by addressKey

	mu     sync.Mutex // guards counts; writers only
	counts map[string]int
}

// enable starts to keep the index. The caller makes sure that nobody changes
// the tables meanwhile.
func (r *reverseIndex) enable(e *engine) {
	if r.on.Load() != nil {
		return
	}
	t := &reverseTables{owners: table.NewMap[answer.Owner](0), above: table.NewMap[struct{}](0), counts: map[string]int{}}
	for _, s := range e.services.All() {
		t.service(nil, s)
	}
	for _, n := range e.nodes.All() {
		t.node(nil, n)
	}
	r.on.Store(t)
}

func (r *reverseIndex) service(old, now *catalog.Service) {
	if t := r.on.Load(); t != nil {
		t.service(old, now)
	}
}

func (r *reverseIndex) node(old, now *record.Node) {
	if t := r.on.Load(); t != nil {
		t.node(old, now)
	}
}

func (r *reverseIndex) owner(a netip.Addr) answer.Owner {
	if t := r.on.Load(); t != nil {
		if o := t.owners.Lookup(string(a.AsSlice())); o != nil {
			return *o
		}
	}
	return answer.Owner{}
}

func (r *reverseIndex) below(p netip.Prefix) bool {
	t := r.on.Load()
	return t != nil && t.above.Lookup(prefixKey(p.Addr(), p.Bits())) != nil
}

// holding is an instance and an address of it.
type holding struct {
	addr netip.Addr
	name answer.InstanceName
}

func holdings(s *catalog.Service) map[holding]bool {
	if s == nil {
		return nil
	}
	out := make(map[holding]bool, len(s.Instances))
	for i := range s.Instances {
		in, err := s.Instances[i].Record()
		if err != nil {
			continue
		}
		for _, a := range in.Addrs {
			out[holding{a, answer.InstanceName{Label: s.Instances[i].Label, Service: s.Name}}] = true
		}
	}
	return out
}

func (t *reverseTables) service(old, now *catalog.Service) {
	before, after := holdings(old), holdings(now)
	for h := range before {
		if !after[h] {
			t.change(h.addr, func(o *answer.Owner) {
				o.Instances = slices.DeleteFunc(slices.Clone(o.Instances), func(n answer.InstanceName) bool { return n == h.name })
			})
		}
	}
	for h := range after {
		if !before[h] {
			t.change(h.addr, func(o *answer.Owner) { o.Instances = append(slices.Clip(o.Instances), h.name) })
		}
	}
}

func (t *reverseTables) node(old, now *record.Node) {
	if old != nil {
		for _, a := range old.Addrs {
			t.change(a, func(o *answer.Owner) {
				if o.Node == old.Name {
					o.Node = ""
				}
			})
		}
	}
	if now != nil {
		for _, a := range now.Addrs {
			t.change(a, func(o *answer.Owner) { o.Node = now.Name })
		}
	}
}

// change replaces the owner of an address. Owners are immutable once stored.
func (t *reverseTables) change(a netip.Addr, edit func(*answer.Owner)) {
	key := string(a.AsSlice())
	old := t.owners.Lookup(key)
	var now answer.Owner
	if old != nil {
		now = *old
	}
	edit(&now)
	if now.Node == "" && len(now.Instances) == 0 {
		if old != nil {
			t.owners.Delete(key)
			t.count(a, -1)
		}
		return
	}
	t.owners.Store(key, &now)
	if old == nil {
		t.count(a, 1)
	}
}

// count adds an address to, or takes it from, the names above its own.
func (t *reverseTables) count(a netip.Addr, by int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	step := 4 // a label of ip6.arpa
	if a.Is4() {
		step = 8
	}
	for bits := 0; bits < a.BitLen(); bits += step {
		key := prefixKey(a, bits)
		n := t.counts[key] + by
		if n == 0 {
			delete(t.counts, key)
			t.above.Delete(key)
			continue
		}
		t.counts[key] = n
		if n == 1 && by == 1 {
			t.above.Store(key, &struct{}{})
		}
	}
}

func prefixKey(a netip.Addr, bits int) string {
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return string(append(p.Addr().AsSlice(), byte(bits)))
}
