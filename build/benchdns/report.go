package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is everything a run found, as it is written to results.json.
type report struct {
	Date     time.Time    `json:"date"`
	Machine  machine      `json:"machine"`
	Workload workload     `json:"workload"`
	Chain    []string     `json:"chain"`
	Rounds   int          `json:"rounds"`
	Seconds  float64      `json:"seconds"`
	Rate     int          `json:"latencyRate"` // queries per second, of the latencies
	Zipf     float64      `json:"zipf"`
	Names    []string     `json:"names"`
	Peers    []peerInfo   `json:"peers"`
	Absent   []absence    `json:"absent"`
	Rows     []row        `json:"rows"`
	Churn    *churnResult `json:"churn,omitempty"`
	// Interrupted says that the run ended before its time.
	Interrupted bool     `json:"interrupted,omitempty"`
	Samples     []sample `json:"samples"`
}

type peerInfo struct {
	Name  string  `json:"name"`
	Title string  `json:"title"`
	About string  `json:"about"`
	Load  float64 `json:"load"` // seconds from its start to its first right answer
}

// row is one server with one distribution of names, over all rounds: medians of
// times in µs per answered query, and ratios of Fluid to it.
type row struct {
	Names     string  `json:"names"`
	Peer      string  `json:"peer"`
	User      float64 `json:"user"`
	System    float64 `json:"system"`
	Total     float64 `json:"total"`
	Store     float64 `json:"store"` // of what it fetches its data from
	Ratio     float64 `json:"ratio"` // Fluid ÷ this, median of the rounds; 0: Fluid did not take part
	RatioLow  float64 `json:"ratioLow"`
	RatioHigh float64 `json:"ratioHigh"`
	P50       float64 `json:"p50"` // latency, µs
	P99       float64 `json:"p99"` // latency, µs
	QPS       float64 `json:"qps"`
	Lost      int64   `json:"lost"`
	Resident  float64 `json:"residentMiB"` // greatest
	Response  int     `json:"responseBytes"`
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func newReport(b *bench, entrants []entrant, absent []absence) *report {
	cpuinfo, _ := readText("/proc/cpuinfo") // a missing name is no reason to fail
	kernel, _ := readText("/proc/sys/kernel/osrelease")
	r := &report{
		Date: time.Now().UTC().Truncate(time.Second),
		Machine: machine{
			CPU: firstField(cpuinfo, "model name"), CPUs: runtime.NumCPU(), Kernel: kernel, Go: runtime.Version(),
		},
		Workload: b.work, Chain: b.opts.chain, Rounds: b.opts.rounds, Seconds: b.opts.seconds.Seconds(),
		Rate: b.opts.rate, Zipf: b.opts.zipf, Names: b.opts.names, Absent: absent,
	}
	for _, e := range entrants {
		r.Peers = append(r.Peers, peerInfo{e.name, e.title, e.about, e.load.Seconds()})
	}
	return r
}

// summarize computes one row for each distribution and server, in the order of
// names and peers.
func summarize(samples []sample, names []string, peers []peerInfo) []row {
	type key struct {
		names, peer string
		round       int
	}
	at := map[key]sample{}
	for _, s := range samples {
		at[key{s.Names, s.Peer, s.Round}] = s
	}
	var rows []row
	for _, n := range names {
		for _, p := range peers {
			var user, system, total, store, qps, ratio []float64
			var latencies []time.Duration
			r := row{Names: n, Peer: p.Name}
			for _, s := range samples {
				if s.Names != n || s.Peer != p.Name {
					continue
				}
				per := func(d time.Duration) float64 { return micros(d) / float64(s.Queries) }
				user, system = append(user, per(s.Server.User)), append(system, per(s.Server.System))
				total, store = append(total, per(s.Server.total())), append(store, per(s.Store.total()))
				qps, latencies = append(qps, s.QPS), append(latencies, s.Latencies...)
				r.Resident = max(r.Resident, float64(s.Resident)/(1<<20))
				r.Lost, r.Response = r.Lost+s.Lost, s.Response
				if f, ok := at[key{n, fluid, s.Round}]; ok {
					ratio = append(ratio, float64(f.Server.total())/float64(f.Queries)/(float64(s.Server.total())/float64(s.Queries)))
				}
			}
			if len(total) == 0 {
				continue
			}
			r.User, r.System, r.Total, r.Store, r.QPS = median(user), median(system), median(total), median(store), median(qps)
			r.P50, r.P99 = micros(percentile(latencies, 50)), micros(percentile(latencies, 99))
			if len(ratio) > 0 {
				r.Ratio, r.RatioLow, r.RatioHigh = median(ratio), slices.Min(ratio), slices.Max(ratio)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// write makes results.json, results.md, the short table readme.md and one chart
// for all distributions in dir, puts the short table into the file readme, if
// that is not empty, and shows the long one on out.
func (r *report) write(dir, readme string, out io.Writer) error {
	r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(names string) bool { return r.rounds(names) == 0 })
	r.Rows = summarize(r.Samples, r.Names, r.Peers)
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var md, short, svg bytes.Buffer
	r.markdown(&md)
	r.short(&short)
	writeChart(&svg, r.chart())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "results.json"), append(raw, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "results.md"), md.Bytes(), 0o644),
		os.WriteFile(filepath.Join(dir, "readme.md"), short.Bytes(), 0o644),
		os.WriteFile(filepath.Join(dir, "cpu.svg"), svg.Bytes(), 0o644),
	)
	if readme != "" {
		err = errors.Join(err, replaceBetweenMarks(readme, short.String()))
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\n%s\nwritten to %s: results.md, results.json, readme.md, cpu.svg\n", md.String(), dir)
	return err
}

// markdown writes the report as a page.
func (r *report) markdown(out io.Writer) {
	fmt.Fprintf(out, "# Processor time per DNS answer\n\n")
	fmt.Fprintf(out, "%s, %s (%d processors), Linux %s, %s. %d services × %d instances (A records, EDNS, UDP on loopback), %d rounds of %g s.\n",
		r.Date.Format(time.DateOnly), cmp.Or(r.Machine.CPU, "unknown processor"), r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go,
		r.Workload.Services, r.Workload.Instances, r.Rounds, r.Seconds)
	fmt.Fprintf(out, "Plugins in front of the data in every CoreDNS: `%s`.\n", strings.Join(r.Chain, "`, `"))
	for _, names := range r.Names {
		title := names
		if names == "zipf" {
			title = fmt.Sprintf("zipf, exponent %g", r.Zipf)
		}
		if n := r.rounds(names); n < r.Rounds {
			title += fmt.Sprintf("; %d rounds, then the run was interrupted", n)
		}
		fmt.Fprintf(out, "\n## Names: %s\n\n", title)
		fmt.Fprintln(out, "| server | CPU µs/query | user | system | fluid ÷ server (rounds) | its store | p50 µs | p99 µs | queries/s | answer bytes | memory MiB |")
		fmt.Fprintln(out, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
		for _, w := range r.Rows {
			if w.Names == names {
				fmt.Fprintf(out, "| %s | %.1f | %.1f | %.1f | %s | %s | %s | %s | %.0f | %d | %.0f |\n", w.Peer, w.Total, w.User, w.System,
					w.ratio(), orDash("%.1f", w.Store), orDash("%.0f", w.P50), orDash("%.0f", w.P99), w.QPS, w.Response, w.Resident)
			}
		}
		for _, a := range r.Absent {
			fmt.Fprintf(out, "| %s | not installed | | | | | | | | | |\n", a.Peer)
		}
	}
	fmt.Fprintf(out, "\nCPU is user and system time of the answering process by the kernel's accounting, divided by the queries answered, while\n")
	fmt.Fprintf(out, "dnsperf keeps %s queries under way from another processor. A ratio compares two turns of one round; the median of the rounds is\n", outstanding)
	fmt.Fprintf(out, "shown, with the least and the greatest. \"Its store\" is the time per query of what the server fetches its data from. Latencies are\n")
	fmt.Fprintf(out, "at %d queries/s.\n\n", r.Rate)
	for _, p := range r.Peers {
		fmt.Fprintf(out, "- **%s**: %s; its first answer came %.1f s after its start\n", p.Name, p.About, p.Load)
	}
	for _, a := range r.Absent {
		fmt.Fprintf(out, "- **%s**: %s\n", a.Peer, a.Reason)
	}
	if r.Churn != nil {
		r.Churn.markdown(out)
	}
}

// rounds returns the number of rounds of a distribution that were finished.
func (r *report) rounds(names string) int {
	n := 0
	for _, s := range r.Samples {
		if s.Names == names {
			n = max(n, s.Round+1)
		}
	}
	return n
}

// ratio shows Fluid's cost relative to this row's.
func (w row) ratio() string {
	if w.Ratio == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", w.Ratio, w.RatioLow, w.RatioHigh)
}

// orDash formats value, a dash where there is none.
func orDash(format string, value float64) string {
	if value == 0 {
		return "–"
	}
	return fmt.Sprintf(format, value)
}

// chart returns the rows as bars: one group for each server, one bar for each
// distribution of names.
func (r *report) chart() chart {
	c := chart{
		title: "Processor time per DNS answer",
		sub: fmt.Sprintf("µs per query answered, less is better · %d services × %d instances · %s · %s",
			r.Workload.Services, r.Workload.Instances, cmp.Or(r.Machine.CPU, "unknown processor"), r.Date.Format(time.DateOnly)),
		series: r.Names,
		parts:  []string{"user", "system"},
	}
	for _, p := range r.Peers {
		g := group{label: p.Name}
		for _, names := range r.Names {
			for _, w := range r.Rows {
				if w.Peer == p.Name && w.Names == names {
					// The median of the sum is not the sum of the medians: the bar is as long
					// as the table says, divided as the medians are.
					user := w.Total * w.User / max(w.User+w.System, 1e-9)
					g.bars = append(g.bars, []float64{user, w.Total - user})
				}
			}
		}
		c.groups = append(c.groups, g)
	}
	for _, a := range r.Absent {
		c.groups = append(c.groups, group{label: a.Peer, note: "not installed"})
	}
	return c
}
