package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"sort"
	"strconv"
)

// workload is the data that every server holds and the names it is asked for.
// It is a pure function of its fields, so that runs can be compared.
type workload struct {
	Zone      string `json:"zone"` // without the final dot
	Services  int    `json:"services"`
	Instances int    `json:"instances"` // per service
	TTL       int    `json:"ttl"`       // seconds, of every record
}

// label is the name of service s, 0 ≤ s < Services. All labels have one length,
// so every answer has one size.
func (w workload) label(s int) string {
	width := max(5, len(strconv.Itoa(w.Services-1)))
	return fmt.Sprintf("svc%0*d", width, s)
}

// name is the domain name of service s, without the final dot.
func (w workload) name(s int) string { return w.label(s) + "." + w.Zone }

// address is the address of instance i of service s after it has changed version
// times. Addresses are taken from 10.0.0.0/8 and differ between instances; the
// versions of one instance repeat only after the /8 is used up.
func (w workload) address(s, i, version int) netip.Addr {
	total := uint64(w.Services * w.Instances)
	const space = 1<<24 - 1<<9 // leaves 10.0.0.0/24 and the last /24 out
	n := uint32((uint64(s*w.Instances+i)+uint64(version)*total)%space) + 1<<8
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// addresses are the addresses of service s before any change.
func (w workload) addresses(s int) []netip.Addr {
	all := make([]netip.Addr, w.Instances)
	for i := range all {
		all[i] = w.address(s, i, 0)
	}
	return all
}

// A picker returns the next service to ask for.
type picker func() int

// uniform picks every one of n services equally often.
func uniform(rng *rand.Rand, n int) picker {
	return func() int { return rng.IntN(n) }
}

// zipf picks the service of rank k with a probability proportional to
// 1/k^exponent. The ranks are scattered over the services, so that popular
// names are not neighbours in anybody's tree.
func zipf(rng *rand.Rand, n int, exponent float64) picker {
	cumulative := make([]float64, n)
	sum := 0.0
	for k := range n {
		sum += math.Pow(float64(k+1), -exponent)
		cumulative[k] = sum
	}
	order := rng.Perm(n)
	return func() int {
		k := sort.SearchFloat64s(cumulative, rng.Float64()*sum)
		return order[min(k, n-1)]
	}
}

// distribution returns the picker called name, seeded by seed.
func distribution(name string, n int, exponent float64, seed uint64) (picker, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	switch name {
	case "uniform":
		return uniform(rng, n), nil
	case "zipf":
		return zipf(rng, n, exponent), nil
	}
	return nil, fmt.Errorf("names: %q is neither uniform nor zipf", name)
}

// writeQueries writes count queries in dnsperf's input format.
func writeQueries(out io.Writer, w workload, pick picker, count int) error {
	b := bufio.NewWriter(out)
	for range count {
		fmt.Fprintf(b, "%s A\n", w.name(pick()))
	}
	return b.Flush()
}

// inOrder picks 0, 1, 2 and so on: with it, writeQueries asks for every service
// once, which fills caches.
func inOrder() picker {
	next := -1
	return func() int { next++; return next }
}
