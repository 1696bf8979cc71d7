package answer

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

// built returns the answer to an A query for a service whose instances have
// the given addresses and weights.
func built(limit int, weights []uint16, addresses ...[]string) *Answer {
	return builtOf(dns.TypeA, limit, weights, addresses...)
}

func builtOf(typ uint16, limit int, weights []uint16, addresses ...[]string) *Answer {
	z := NewZone(Config{Origin: "fluid.internal.", TTL: 5, AnswerLimit: limit})
	svc := &catalog.Service{Name: "web", Instances: make([]catalog.Instance, len(weights))}
	b := &builder{zone: z, typ: typ}
	for i := range weights {
		m := &member{ttl: 5, near: true}
		m.view, m.Weight = &svc.Instances[i], weights[i]
		for _, a := range addresses[i] {
			m.Addrs = append(m.Addrs, netip.MustParseAddr(a))
		}
		b.addresses(m, "web.fluid.internal.")
	}
	return z.finish(svc, b)
}

func TestDraw(t *testing.T) {
	one, two, three, five := []string{"10.0.0.1"}, []string{"10.0.0.2"}, []string{"10.0.0.3"}, []string{"10.0.0.4", "10.0.0.5"}
	tests := []struct {
		name      string
		limit     int
		weights   []uint16
		addresses [][]string
		even      bool
		records   int // in one drawn answer
	}{
		{"one", 0, []uint16{1}, [][]string{one}, false, 1},
		{"equal", 0, []uint16{1, 1, 1}, [][]string{three, one, two}, true, 3},
		{"equal and limited", 2, []uint16{1, 1, 1}, [][]string{three, one, two}, true, 2},
		{"limited to more than there is", 9, []uint16{1, 1, 1}, [][]string{three, one, two}, true, 3},
		{"all without weight", 0, []uint16{0, 0, 0}, [][]string{one, two, three}, true, 3},
		{"one heavier", 0, []uint16{1, 3, 1}, [][]string{one, two, three}, false, 3},
		{"two addresses", 0, []uint16{1, 1}, [][]string{one, five}, false, 3},
		{"two addresses and limited", 1, []uint16{1, 1}, [][]string{five, five}, false, 2},
		{"more than fit in one piece", 0, []uint16{1, 1, 1, 1, 1}, [][]string{one, two, three, {"10.0.0.4"}, {"10.0.0.5"}}, true, 5},
		{"one address twice", 0, []uint16{1, 1, 1}, [][]string{one, one, two}, false, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := built(test.limit, test.weights, test.addresses...)
			if a.even != test.even {
				t.Errorf("even: got %t, want %t", a.even, test.even)
			}
			var whole []string
			for _, rr := range a.Records {
				whole = append(whole, rr.String())
				if h := rr.Header(); h.Name != "web.fluid.internal." || h.Ttl != 5 {
					t.Errorf("unexpected record %v", rr)
				}
			}
			if !slices.IsSorted(whole) || cap(a.Records) != len(a.Records) {
				t.Errorf("records: got %v with capacity %d", whole, cap(a.Records))
			}
			for range 100 {
				drawn, extra := a.Draw(nil)
				if len(drawn) != test.records || cap(drawn) != len(drawn) || len(extra) != 0 {
					t.Fatalf("drew %v with capacity %d and %v, want %d records", drawn, cap(drawn), extra, test.records)
				}
				seen := map[dns.RR]bool{}
				for _, rr := range drawn {
					if seen[rr] || !slices.Contains(a.Records, rr) {
						t.Fatalf("drew %v from %v", drawn, whole)
					}
					seen[rr] = true
				}
			}
			for i, rr := range a.Records {
				if rr.String() != whole[i] {
					t.Errorf("drawing changed the answer to %v", a.Records)
				}
			}
		})
	}
}

// Every order of equal instances is equally frequent, with a limit too.
func TestDrawEvenIsFair(t *testing.T) {
	for _, limit := range []int{0, 2} {
		a := built(limit, []uint16{1, 1, 1}, []string{"10.0.0.1"}, []string{"10.0.0.2"}, []string{"10.0.0.3"})
		const draws = 60_000
		count := map[string]int{}
		for range draws {
			drawn, _ := a.Draw(nil)
			order := ""
			for _, rr := range drawn {
				order += rr.(*dns.A).A.String() + " "
			}
			count[order]++
		}
		if len(count) != 6 {
			t.Errorf("limit %d: %d orders, want 6", limit, len(count))
		}
		for order, n := range count {
			if mean := float64(draws) / 6; math.Abs(float64(n)-mean) > 6*math.Sqrt(mean) {
				t.Errorf("limit %d: %s came %d times of %d", limit, order, n, draws)
			}
		}
	}
}

// A packed answer is in one piece of memory: its records lie in order, next to
// each other, and their data behind them.
func TestPack(t *testing.T) {
	tests := []struct {
		name      string
		typ       uint16
		weights   []uint16
		addresses [][]string
		packed    bool
	}{
		{"one instance", dns.TypeA, []uint16{1}, [][]string{{"10.0.0.1"}}, true},
		{"one instance with two addresses", dns.TypeA, []uint16{1}, [][]string{{"10.0.0.2", "10.0.0.1"}}, true},
		{"two equal", dns.TypeA, []uint16{2, 2}, [][]string{{"10.0.0.2"}, {"10.0.0.1"}}, true},
		{"two unequal", dns.TypeA, []uint16{2, 1}, [][]string{{"10.0.0.2"}, {"10.0.0.1"}}, false},
		{"IPv6", dns.TypeAAAA, []uint16{1, 1}, [][]string{{"fd00::2"}, {"fd00::1"}}, true},
		{"an IPv4 address in IPv6", dns.TypeAAAA, []uint16{1, 1}, [][]string{{"fd00::2"}, {"::ffff:10.0.0.1"}}, true},
		{"many", dns.TypeA, []uint16{1, 1, 1, 1, 1}, [][]string{{"10.0.0.2"}, {"10.0.0.1"}, {"10.0.0.5"}, {"10.0.0.4"}, {"10.0.0.3"}}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := builtOf(test.typ, 0, test.weights, test.addresses...)
			if got := len(a.ipv4)+len(a.ipv6) > 0; got != test.packed {
				t.Fatalf("packed: got %t, want %t", got, test.packed)
			}
			var want, got []string
			for _, addresses := range test.addresses {
				for _, text := range addresses {
					want = append(want, netip.MustParseAddr(text).String())
				}
			}
			for i, rr := range a.Records {
				var data []byte
				switch rr := rr.(type) {
				case *dns.A:
					if data = rr.A; test.packed && rr != &a.ipv4[i] {
						t.Errorf("%v is somewhere else", rr)
					}
				case *dns.AAAA:
					if data = rr.AAAA; test.packed && rr != &a.ipv6[i] {
						t.Errorf("%v is somewhere else", rr)
					}
				}
				addr, _ := netip.AddrFromSlice(data)
				got = append(got, addr.String())
				if cap(data) != len(data) {
					t.Errorf("%v has room for %d bytes", rr, cap(data))
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Drawing from a packed answer allocates nothing where the caller has room.
func TestDrawAllocates(t *testing.T) {
	for n := 2; n <= few+1; n++ {
		var weights []uint16
		var addresses [][]string
		for i := range n {
			weights, addresses = append(weights, 1), append(addresses, []string{fmt.Sprintf("10.0.0.%d", i)})
		}
		a := built(0, weights, addresses...)
		room := make([]dns.RR, few)
		want := 0.0
		if n > few {
			want = 1
		}
		if got := testing.AllocsPerRun(100, func() { a.Draw(room) }); got != want {
			t.Errorf("%d instances: %v allocations, want %v", n, got, want)
		}
	}
}
