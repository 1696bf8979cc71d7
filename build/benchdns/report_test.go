package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   float64
	}{
		{"one", []float64{3}, 3},
		{"odd", []float64{9, 1, 3}, 3},
		{"even", []float64{4, 1, 2, 9}, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := median(test.values); got != test.want {
				t.Errorf("got %g, want %g", got, test.want)
			}
		})
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("none: got %g, want NaN", got)
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := 100; i >= 1; i-- {
		hundred = append(hundred, time.Duration(i))
	}
	for p, want := range map[float64]time.Duration{0: 1, 1: 1, 50: 50, 99: 99, 99.5: 100, 100: 100} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("p%g: got %d, want %d", p, got, want)
		}
	}
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("none: got %d, want 0", got)
	}
}

// turnOf is a turn of 1000 queries at the given time for each.
func turnOf(names string, round int, peer string, user, system time.Duration) sample {
	return sample{
		Names: names, Round: round, Peer: peer, Queries: 1000, QPS: 1000, Response: 100, Resident: 3 << 20,
		Server:    cpuTime{User: 1000 * user, System: 1000 * system},
		Latencies: []time.Duration{100 * time.Microsecond, 200 * time.Microsecond},
	}
}

func testReport() *report {
	const us = time.Microsecond
	r := &report{
		Date:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Machine: machine{CPU: "Some CPU", CPUs: 2, Kernel: "6.1", Go: "go1.26"}, Workload: small,
		Chain: []string{"errors"}, Rounds: 3, Seconds: 2, Rate: 500, Zipf: 1, Names: []string{"uniform", "zipf"},
		Peers:  []peerInfo{{"fluid", "Fluid", "Fluid", 1.25}, {"hosts", "CoreDNS `hosts`", "CoreDNS <hosts>", 0.1}},
		Absent: []absence{{"nsd", "not installed: nsd"}},
	}
	for _, names := range r.Names {
		// The machine is twice as slow in the second round: the ratio does not see it.
		r.Samples = append(r.Samples,
			turnOf(names, 0, "fluid", 8*us, 2*us), turnOf(names, 0, "hosts", 15*us, 5*us),
			turnOf(names, 1, "fluid", 16*us, 4*us), turnOf(names, 1, "hosts", 30*us, 10*us),
			turnOf(names, 2, "fluid", 8*us, 4*us), turnOf(names, 2, "hosts", 15*us, 5*us),
		)
	}
	r.Churn = &churnResult{
		Wanted: 2000, Changes: 1990, Batches: 200, Windows: 10, Urgent: true, Ratio: 1.5, RatioLow: 1.2, RatioHigh: 2,
		Idle: phase{Answers: 100, P50: 100 * us, P99: 400 * us},
		Busy: phase{Answers: 90, Lost: 1, Oldest: 12 * time.Millisecond, P50: 110 * us, P99: 600 * us},
	}
	return r
}

func TestSummarize(t *testing.T) {
	r := testReport()
	rows := summarize(r.Samples, r.Names, r.Peers)
	if len(rows) != 4 {
		t.Fatalf("got %d rows, want 4", len(rows))
	}
	got := rows[1]
	want := row{
		Names: "uniform", Peer: "hosts", User: 15, System: 5, Total: 20, Ratio: 0.5, RatioLow: 0.5, RatioHigh: 0.6,
		P50: 100, P99: 200, QPS: 1000, Response: 100, Resident: 3,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if rows[0].Ratio != 1 {
		t.Errorf("fluid to itself: got %g, want 1", rows[0].Ratio)
	}
	// Without Fluid there is no ratio.
	if got := summarize(r.Samples[1:2], r.Names, r.Peers)[0]; got.Ratio != 0 || got.ratio() != "–" {
		t.Errorf("without Fluid: got ratio %g, %s", got.Ratio, got.ratio())
	}
}

func TestReportFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	var shown strings.Builder
	if err := testReport().write(dir, "", &shown); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"results.md", "results.json", "readme.md", "cpu.svg"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, string(text))
	}
	if !strings.Contains(shown.String(), "| nsd | not installed |") {
		t.Errorf("an absent peer is not in the table:\n%s", &shown)
	}
}

// The short table takes the place of the one before.
func TestReadme(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "README.md")
	write := func(text string) error {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return testReport().write(dir, page, io.Discard)
	}
	if err := write("# Page\n\n" + beginMark + "old\n" + endMark + "\nend\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	short, err := os.ReadFile(filepath.Join(dir, "readme.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Page\n\n" + beginMark + string(short) + endMark + "\nend\n"; string(got) != want {
		t.Errorf("got:\n%s", got)
	}
	for _, page := range []string{"", beginMark, endMark + beginMark} {
		if err := write(page); err == nil {
			t.Errorf("%q: got no error", page)
		}
	}
}

// Of a run that was interrupted the finished rounds are shown.
func TestReportOfInterrupted(t *testing.T) {
	r := testReport()
	r.Samples = r.Samples[:4] // two rounds of the first distribution
	r.Interrupted, r.Churn = true, nil
	var shown strings.Builder
	if err := r.write(t.TempDir(), "", &shown); err != nil {
		t.Fatal(err)
	}
	text := shown.String()
	if !strings.Contains(text, "uniform; 2 rounds, then") || strings.Contains(text, "Names: zipf") || strings.Contains(text, "NaN") {
		t.Errorf("got:\n%s", text)
	}
}

func TestChartIsXML(t *testing.T) {
	tests := []struct {
		name  string
		chart chart
	}{
		{"nothing", chart{}},
		{"no time", chart{series: []string{"a"}, parts: []string{"b"}, groups: []group{{label: "x", bars: [][]float64{{0}}}}}},
		{"names to escape", chart{title: `<&">`, groups: []group{{label: "a<b", note: "c&d"}}}},
		{"many series", chart{series: []string{"a", "b", "c", "d"}, groups: []group{{bars: [][]float64{{1, 2, 3}, {1}, {2}, {1e6}}}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b strings.Builder
			writeChart(&b, test.chart)
			decoder := xml.NewDecoder(strings.NewReader(b.String()))
			for {
				if _, err := decoder.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%v in:\n%s", err, &b)
				}
			}
			if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
				t.Errorf("a coordinate is no number:\n%s", &b)
			}
		})
	}
}

func TestNiceStep(t *testing.T) {
	for longest, want := range map[float64]float64{0: 1, 1: 0.2, 8: 1, 9: 2, 89: 20, 400: 50, 401: 100} {
		if got := niceStep(longest); math.Abs(got-want) > 1e-9 {
			t.Errorf("%g: got %g, want %g", longest, got, want)
		}
	}
}
