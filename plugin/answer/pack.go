package answer

import "github.com/miekg/dns"

// pack moves the records of an answer of nothing but addresses next to each
// other, the shape of nearly every answer. Most of what an answer costs beyond
// the server's own work is waiting for memory: one of a dozen small objects
// would wait for each of them.
func (a *Answer) pack() {
	n := len(a.Records)
	if a.sets != nil || len(a.Extra) > 0 || n == 0 {
		return
	}
	switch a.Records[0].(type) {
	case *dns.A:
		p := newPiece[dns.A, [4]byte](n)
		a.ipv4 = p.records
		for i, rr := range a.Records {
			a.ipv4[i] = *rr.(*dns.A)
			p.data[i] = [4]byte(a.ipv4[i].A)
			a.ipv4[i].A = p.data[i][:]
			a.Records[i] = &a.ipv4[i]
		}
	case *dns.AAAA:
		p := newPiece[dns.AAAA, [16]byte](n)
		a.ipv6 = p.records
		for i, rr := range a.Records {
			a.ipv6[i] = *rr.(*dns.AAAA)
			p.data[i] = [16]byte(a.ipv6[i].AAAA)
			a.ipv6[i].AAAA = p.data[i][:]
			a.Records[i] = &a.ipv6[i]
		}
	}
}

// few is the number of records that fit into one piece of memory with their
// data.
const few = 4

// piece is memory for records of one type and their data.
type piece[T, D any] struct {
	records []T
	data    []D
}

func newPiece[T, D any](n int) piece[T, D] {
	if n > few {
		return piece[T, D]{make([]T, n), make([]D, n)}
	}
	p := new(struct {
		records [few]T
		data    [few]D
	})
	return piece[T, D]{p.records[:n:n], p.data[:n:n]}
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
