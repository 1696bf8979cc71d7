package answer

import (
	"fmt"
	"math"
	"testing"

	"github.com/miekg/dns"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// service returns a view of instances that differ in weight and priority.
func service(weights, priorities []uint16) *catalog.Service {
	svc := &catalog.Service{Name: "web"}
	for i, w := range weights {
		in := record.Instance{Service: "web", Addrs: addrs(fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)), Weight: w, Port: 80}
		if priorities != nil {
			in.Priority = priorities[i]
		}
		in.Normalize()
		svc.Instances = append(svc.Instances, catalog.Instance{
			Value: string(in.Append(nil)), ID: in.ID, Label: fmt.Sprintf("i%04d", i), Weight: w,
		})
	}
	return svc
}

func answerOf(t *testing.T, svc *catalog.Service, limit int) *Answer {
	t.Helper()
	z := NewZone(Config{Origin: "z.", TTL: 5, AnswerLimit: limit})
	return z.service(name{form: formService, service: "web"}, svc, "web.z.", dns.TypeA)
}

// first returns the index of the instance that an address record belongs to.
func first(rr dns.RR) int {
	ip := rr.(*dns.A).A
	return int(ip[2])*250 + int(ip[3]) - 1
}

// The first record is drawn in proportion to the weights, whatever the way of
// drawing: equal weights, few instances, many instances.
func TestDrawProportions(t *testing.T) {
	many := make([]uint16, 100)
	for i := range many {
		many[i] = uint16(1 + i%3)
	}
	for name, weights := range map[string][]uint16{
		"equal": {5, 5, 5, 5}, "unequal": {1, 2, 3, 10}, "large": {65535, 1, 65535}, "all zero": {0, 0, 0}, "many": many,
		"zero among others": {0, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := answerOf(t, service(weights, nil), 0)
			total, even := 0.0, true
			for _, w := range weights {
				total += float64(w)
				even = even && w == 0
			}
			const draws = 40000
			got := make([]int, len(weights))
			for range draws {
				records, _ := a.Draw(nil)
				got[first(records[0])]++
			}
			for i, n := range got {
				share := float64(weights[i]) / total
				if even {
					share = 1 / float64(len(weights))
				}
				// Five standard deviations: one failure in a million runs.
				if limit := 5*math.Sqrt(draws*share*(1-share)) + 1; math.Abs(float64(n)-draws*share) > limit {
					t.Errorf("instance %d of weight %d came first %d times of %d, want %.0f ± %.0f", i, weights[i], n, draws, draws*share, limit)
				}
			}
		})
	}
}

// The second place goes to the others in proportion to their weights.
func TestDrawSecond(t *testing.T) {
	a := answerOf(t, service([]uint16{1, 2, 3}, nil), 0)
	var second [3]int
	const draws = 60000
	for range draws {
		records, _ := a.Draw(nil)
		second[first(records[1])]++
	}
	// P(second = i) = Σ over j ≠ i of w_j/6 · w_i/(6-w_j).
	for i, want := range []float64{2.0/6*1/4 + 3.0/6*1/3, 1.0/6*2/5 + 3.0/6*2/3, 1.0/6*3/5 + 2.0/6*3/4} {
		if got := float64(second[i]) / draws; math.Abs(got-want) > 0.015 {
			t.Errorf("instance %d came second %.3f of the time, want %.3f", i, got, want)
		}
	}
}

func TestDrawWhole(t *testing.T) {
	a := answerOf(t, service([]uint16{1, 9, 3, 3, 7}, []uint16{2, 1, 1, 0, 2}), 0)
	for range 200 {
		records, _ := a.Draw(nil)
		seen := map[int]bool{}
		rank := uint16(0)
		for _, rr := range records {
			i := first(rr)
			p := []uint16{2, 1, 1, 0, 2}[i]
			if seen[i] || p < rank {
				t.Fatalf("drew %v: an instance twice or out of priority", records)
			}
			seen[i], rank = true, p
		}
		if len(seen) != 5 || cap(records) != len(records) {
			t.Fatalf("drew %d instances with capacity %d, want 5 with none to spare", len(seen), cap(records))
		}
	}
}

func TestAnswerLimit(t *testing.T) {
	a := answerOf(t, service([]uint16{1, 1, 1, 1}, []uint16{1, 0, 0, 1}), 3)
	for range 50 {
		records, _ := a.Draw(nil)
		if len(records) != 3 {
			t.Fatalf("%d instances, want the limit of 3", len(records))
		}
		for _, rr := range records[:2] {
			if i := first(rr); i != 1 && i != 2 {
				t.Fatalf("instance %d of a later priority is among the first two", i)
			}
		}
	}
	if len(a.Records) != 4 {
		t.Errorf("the whole set has %d records, want 4", len(a.Records))
	}
	svc := service([]uint16{1, 1, 1}, nil)
	svc.Config.AnswerLimit = 1
	if records, _ := answerOf(t, svc, 2).Draw(nil); len(records) != 1 {
		t.Errorf("%d instances, want the service's own limit of 1", len(records))
	}
}

// Two instances that share an address give one record, and the weight of both.
func TestSharedAddress(t *testing.T) {
	svc := service([]uint16{1, 1, 2}, nil)
	in := record.Instance{Service: "web", Addrs: addrs("10.0.0.1"), Weight: 3, Port: 81}
	in.Normalize()
	svc.Instances[1].Value, svc.Instances[1].Weight = string(in.Append(nil)), 3
	a := answerOf(t, svc, 0)
	if len(a.Records) != 2 || a.sets[0].weight != 4 {
		t.Errorf("%v with weight %d, want two records, the first of weight 4", a.Records, a.sets[0].weight)
	}
}

func BenchmarkDraw(b *testing.B) {
	for _, n := range []int{3, 30, 300} {
		weights := make([]uint16, n)
		for i := range weights {
			weights[i] = uint16(i + 1)
		}
		z := NewZone(Config{Origin: "z.", TTL: 5})
		a := z.service(name{form: formService, service: "web"}, service(weights, nil), "web.z.", dns.TypeA)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.Draw(nil)
			}
		})
	}
}
