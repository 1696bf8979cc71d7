package answer

import "github.com/miekg/dns"

// packed is an answer of few IPv4 addresses in one piece of memory, the shape
// of nearly every answer. With many answers none is in the processor's caches,
// and most of what a query costs beyond the server's own work is waiting for
// memory: an answer made of a dozen small objects would wait for each of them.
type packed struct {
	Answer
	records   [packedSize]dns.RR
	rrs       [packedSize]dns.A
	addresses [packedSize][4]byte
}

const packedSize = 4

// pack returns the answer in one piece of memory if nothing but few addresses is
// in it, and else as it is. The answer given is not used any more.
func (a *Answer) pack() *Answer {
	n := len(a.Records)
	if a.sets != nil || len(a.Extra) > 0 || n > packedSize {
		return a
	}
	p := &packed{Answer: *a}
	for i, rr := range a.Records {
		old, ok := rr.(*dns.A)
		if !ok {
			return a
		}
		p.addresses[i] = [4]byte(old.A.To4())
		p.rrs[i] = dns.A{Hdr: old.Hdr, A: p.addresses[i][:]}
		p.records[i] = &p.rrs[i]
	}
	p.Records = p.records[:n:n]
	return &p.Answer
}

// even reports whether each set is one record with nothing additional, and all
// have the same chance of each place. Such an answer is drawn from its records.
func even(sets []set) bool {
	for _, s := range sets {
		if len(s.records) != 1 || len(s.extra) > 0 || s.rank != sets[0].rank || s.weight != sets[0].weight {
			return false
		}
	}
	return true
}
