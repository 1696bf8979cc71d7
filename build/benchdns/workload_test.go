package main

import (
	"bytes"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestAddressesDiffer(t *testing.T) {
	w := workload{Zone: "fluid.internal", Services: 500, Instances: 3}
	space := netip.MustParsePrefix("10.0.0.0/8")
	seen := map[netip.Addr]bool{}
	for version := range 20 {
		for s := range w.Services {
			for i := range w.Instances {
				a := w.address(s, i, version)
				if !space.Contains(a) || seen[a] {
					t.Fatalf("service %d, instance %d, version %d: %v is outside of %v or taken", s, i, version, a, space)
				}
				seen[a] = true
			}
		}
	}
	// Versions beyond the /8 repeat, but stay inside.
	if a := w.address(499, 2, 1_000_000); !space.Contains(a) {
		t.Errorf("version 1000000: got %v", a)
	}
}

func TestLabelsHaveOneLength(t *testing.T) {
	for _, services := range []int{1, 10_000, 100_000, 1_000_000} {
		w := workload{Zone: "z", Services: services}
		if first, last := w.label(0), w.label(services-1); len(first) != len(last) {
			t.Errorf("%d services: %s and %s", services, first, last)
		}
	}
	w := workload{Zone: "fluid.internal", Services: 10_000}
	if got, want := w.name(7), "svc00007.fluid.internal"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// counts draws n times and returns how often each service came, most often first.
func counts(pick picker, services, n int) []int {
	c := make([]int, services)
	for range n {
		c[pick()]++
	}
	slices.SortFunc(c, func(a, b int) int { return b - a })
	return c
}

func TestUniform(t *testing.T) {
	const services, draws = 100, 200_000
	c := counts(uniform(rand.New(rand.NewPCG(1, 1)), services), services, draws)
	mean := float64(draws) / services
	if far := 6 * math.Sqrt(mean); float64(c[0])-mean > far || mean-float64(c[services-1]) > far {
		t.Errorf("from %d to %d, want %g ± %g", c[services-1], c[0], mean, far)
	}
}

func TestZipf(t *testing.T) {
	const services, draws = 1000, 400_000
	for _, exponent := range []float64{0.8, 1, 1.5} {
		c := counts(zipf(rand.New(rand.NewPCG(1, 1)), services, exponent), services, draws)
		sum := 0.0
		for k := range services {
			sum += math.Pow(float64(k+1), -exponent)
		}
		for _, k := range []int{0, 1, 9} {
			want := draws * math.Pow(float64(k+1), -exponent) / sum
			if got := float64(c[k]); math.Abs(got-want) > 6*math.Sqrt(want) {
				t.Errorf("exponent %g, rank %d: got %g, want about %.0f", exponent, k+1, got, want)
			}
		}
	}
	// Exponent 0 knows no favourites.
	c := counts(zipf(rand.New(rand.NewPCG(1, 1)), 100, 0), 100, 100_000)
	if c[0] > 1200 || c[99] < 800 {
		t.Errorf("exponent 0: from %d to %d", c[99], c[0])
	}
}

func TestZipfScattersItsFavourites(t *testing.T) {
	pick := zipf(rand.New(rand.NewPCG(1, 1)), 1000, 1)
	c := make([]int, 1000)
	for range 100_000 {
		c[pick()]++
	}
	first := slices.Index(c, slices.Max(c))
	if c[(first+1)%1000] > c[first]/4 || first == 0 {
		t.Errorf("the favourite is %d and its neighbour comes %d times, it %d times", first, c[(first+1)%1000], c[first])
	}
}

func TestDistribution(t *testing.T) {
	for _, name := range []string{"uniform", "zipf"} {
		var runs [2]bytes.Buffer
		for i := range runs {
			pick, err := distribution(name, 100, 1, 7)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeQueries(&runs[i], workload{Zone: "z", Services: 100}, pick, 50); err != nil {
				t.Fatal(err)
			}
		}
		if runs[0].String() != runs[1].String() {
			t.Errorf("%s: two runs differ", name)
		}
	}
	if _, err := distribution("normal", 1, 1, 1); err == nil {
		t.Error("normal: got no error")
	}
}

func TestInOrder(t *testing.T) {
	var b strings.Builder
	if err := writeQueries(&b, workload{Zone: "z", Services: 3}, inOrder(), 3); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "svc00000.z A\nsvc00001.z A\nsvc00002.z A\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
