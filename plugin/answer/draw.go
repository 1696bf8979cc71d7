package answer

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/miekg/dns"
)

// onStack is the number of instances that are drawn without allocating
// anything but the sections themselves.
const onStack = 64

// Draw returns the answer's sections with the instances in random order: the
// preferred failure domain first, then lower priorities first, then each next
// one with a chance in proportion to its weight among those left. Instances
// are drawn, not records, so an instance's addresses stay together. With an
// answer limit only as many instances are drawn.
//
// The records are put into room, if they fit, with no capacity beyond. If there
// is nothing to draw the sections are the answer's own, which are shared and
// have no spare capacity either; a drawn additional section has room for an OPT
// record.
func (a *Answer) Draw(room []dns.RR) (records, extra []dns.RR) {
	switch {
	case a.even:
		return a.drawEven(room), nil
	case a.sets == nil:
		return a.Records, a.Extra
	}
	var buf [onStack]uint32
	var order []uint32
	if len(a.sets) <= onStack {
		order = buf[:len(a.sets)]
	} else {
		order = make([]uint32, len(a.sets))
	}
	for i := range order {
		order[i] = uint32(i)
	}
	n := len(order)
	if a.limit > 0 {
		n = min(n, int(a.limit))
	}
	for from := 0; from < n; {
		to := from + 1
		for to < len(order) && a.sets[to].rank == a.sets[from].rank {
			to++
		}
		a.shuffle(order[from:to], n-from)
		from = to
	}
	order = order[:n]
	var nr, nx int
	for _, i := range order {
		nr += len(a.sets[i].records)
		nx += len(a.sets[i].extra)
	}
	records = space(room, nr)[:0]
	if nx > 0 {
		extra = make([]dns.RR, 0, nx+1)
	}
	for _, i := range order {
		records = append(records, a.sets[i].records...)
		extra = append(extra, a.sets[i].extra...)
	}
	return records, extra
}

// space returns n records of room, or new ones if it has fewer.
func space(room []dns.RR, n int) []dns.RR {
	if n > len(room) {
		return make([]dns.RR, n)
	}
	return room[:n:n]
}

// drawEven returns the records in random order, up to the limit.
func (a *Answer) drawEven(room []dns.RR) []dns.RR {
	drawn := space(room, len(a.Records))
	switch { // without reading them, if packed
	case len(a.ipv4) == len(drawn):
		for i := range a.ipv4 {
			drawn[i] = &a.ipv4[i]
		}
	case len(a.ipv6) == len(drawn):
		for i := range a.ipv6 {
			drawn[i] = &a.ipv6[i]
		}
	default:
		copy(drawn, a.Records)
	}
	n := len(drawn)
	if a.limit > 0 {
		n = min(n, int(a.limit))
	}
	for i := range min(n, len(drawn)-1) {
		j := i + int(rand.Uint32N(uint32(len(drawn)-i)))
		drawn[i], drawn[j] = drawn[j], drawn[i]
	}
	return drawn[:n:n]
}

// shuffle draws the first n of order (all, if it is shorter), which are of one
// rank.
func (a *Answer) shuffle(order []uint32, n int) {
	first, total, equal := a.sets[order[0]].weight, uint32(0), true
	for _, i := range order {
		w := a.sets[i].weight
		total += uint32(w)
		equal = equal && w == first
	}
	n = min(n, len(order)-1) // the last one is not drawn
	switch {
	case equal:
		for i := range n {
			j := i + int(rand.Uint32N(uint32(len(order)-i)))
			order[i], order[j] = order[j], order[i]
		}
	case len(order) > onStack:
		a.sortWeighted(order)
	default:
		for i := 0; i < n && total > 0; i++ {
			left, j := rand.Uint32N(total), i
			for left >= uint32(a.sets[order[j]].weight) {
				left -= uint32(a.sets[order[j]].weight)
				j++
			}
			total -= uint32(a.sets[order[j]].weight)
			order[i], order[j] = order[j], order[i]
		}
	}
}

// sortWeighted draws many instances at once: it sorts by exponentially
// distributed keys, which gives the same order of draws as drawing one by one
// (Efraimidis and Spirakis, 2006).
func (a *Answer) sortWeighted(order []uint32) {
	keys := make([]float64, len(a.sets))
	for _, i := range order {
		if w := a.sets[i].weight; w > 0 {
			keys[i] = rand.ExpFloat64() / float64(w)
		} else {
			keys[i] = math.Inf(1)
		}
	}
	slices.SortFunc(order, func(x, y uint32) int {
		switch {
		case keys[x] < keys[y]:
			return -1
		case keys[x] > keys[y]:
			return 1
		}
		return 0
	})
}
