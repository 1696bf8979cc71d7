package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// The marks in a page between which the short table stands.
const (
	beginMark = "<!-- benchdns: begin -->\n"
	endMark   = "<!-- benchdns: end -->\n"
)

// short writes what README.md shows of the report.
func (r *report) short(out io.Writer) {
	rounds, ratios := r.Rounds, ""
	for _, names := range r.Names {
		rounds = min(rounds, r.rounds(names))
		ratios += ", " + names
	}
	fmt.Fprintf(out, "Processor time per answered query, user and system, by the kernel's accounting of the answering process: %d services of\n", r.Workload.Services)
	fmt.Fprintf(out, "%d instances, UDP with EDNS, all servers in turn in one run of %s on %d processors, median of %d rounds of %g s. The ratio is\n",
		r.Workload.Instances, r.Date.Format(time.DateOnly), r.Machine.CPUs, rounds, r.Seconds)
	fmt.Fprintf(out, "Fluid's time over the server's (names%s).\n\n", strings.TrimPrefix(ratios, ","))
	fmt.Fprintf(out, "| server | µs per query | Fluid ÷ server |\n|---|--:|--:|\n")
	for _, p := range r.Peers {
		title, total, ratio := p.Title, "", ""
		for _, w := range r.Rows {
			if w.Peer != p.Name {
				continue
			}
			if w.Store >= 1 && p.Name != fluid && ratio == "" {
				title += fmt.Sprintf(", without its store's own %.0f µs", w.Store)
			}
			total += fmt.Sprintf(", %.1f", w.Total)
			ratio += fmt.Sprintf(", %.2f", w.Ratio)
		}
		fmt.Fprintf(out, "| %s | %s | %s |\n", title, strings.TrimPrefix(total, ", "), strings.TrimPrefix(ratio, ", "))
	}
	if c := r.Churn; c != nil {
		fmt.Fprintf(out, "\nWhile %.0f addresses a second change, the 99th percentile of the latency is %.1f times what it is without (%.0f and %.0f µs;\n",
			c.Changes, c.Ratio, micros(c.Busy.P99), micros(c.Idle.P99))
		fmt.Fprintf(out, "median of %d pairs of windows), and of %d answers %d were not true within the last second.\n", c.Windows, c.Busy.Answers, c.Busy.Wrong)
	}
}

// replaceBetweenMarks puts text between the marks in a file.
func replaceBetweenMarks(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(old), beginMark)
	_, after, closed := strings.Cut(rest, endMark)
	if !found || !closed {
		return fmt.Errorf("%s: no lines %q and %q", path, strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	return os.WriteFile(path, []byte(before+beginMark+text+endMark+after), 0o644)
}
