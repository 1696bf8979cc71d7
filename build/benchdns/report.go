package main

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"io"
	"slices"
	"time"
)

// median returns the run in the middle.
func (r *row) median() cost {
	c := slices.Clone(r.costs)
	slices.SortFunc(c, func(a, b cost) int { return cmp.Compare(a.micros(), b.micros()) })
	return c[len(c)/2]
}

// relative returns the median, over the rounds, of the cost against another
// server's in the same round.
func (r *row) relative(to *row) float64 {
	var ratios []float64
	for i := range min(len(r.costs), len(to.costs)) {
		ratios = append(ratios, r.costs[i].micros()/to.costs[i].micros())
	}
	slices.Sort(ratios)
	if len(ratios) == 0 {
		return 0
	}
	return ratios[len(ratios)/2]
}

func find(rows []*row, server, kind string) *row {
	i := slices.IndexFunc(rows, func(r *row) bool { return r.server == server && r.kind == kind })
	if i < 0 {
		return nil
	}
	return rows[i]
}

func report(w io.Writer, cfg config, rows []*row) {
	fmt.Fprintf(w, "%s: %d services of %d instances, %d queries a run, median of %d rounds, %d processors\n\n",
		time.Now().Format(time.DateOnly), cfg.services, cfg.instances, cfg.queries, cfg.rounds, processors())
	fmt.Fprintln(w, "| server | names | µs a query | user | system | against hosts | |\n|---|---|---|---|---|---|---|")
	for _, r := range rows {
		c := r.median()
		per := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(c.answered) }
		against := ""
		if h := find(rows, "hosts", r.kind); h != nil {
			against = fmt.Sprintf("%.2f", r.relative(h))
		}
		fmt.Fprintf(w, "| %s | %s | %.1f | %.1f | %.1f | %s | %s |\n", r.server, r.kind, c.micros(), per(c.user), per(c.system), against, c.note)
	}
}

// chart draws the table as bars.
func chart(cfg config, rows []*row) []byte {
	const bar, left, width = 22, 150, 520
	most := 0.0
	for _, r := range rows {
		most = max(most, r.median().micros())
	}
	var b bytes.Buffer
	height := bar*len(rows) + 60
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", left+width+80, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="8" y="20" font-size="14">Processor time for one query, µs (%d services, %s)</text>`+"\n",
		cfg.services, time.Now().Format(time.DateOnly))
	for i, r := range rows {
		c, y := r.median(), 36+i*bar
		scale := func(d time.Duration) int {
			return int(float64(d) / float64(time.Microsecond) / float64(c.answered) / most * width)
		}
		user, system := scale(c.user), scale(c.system)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s, %s</text>`, left-8, y+14, html.EscapeString(r.server), html.EscapeString(r.kind))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="#2563eb"/>`, left, y+2, user, bar-6)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="#93c5fd"/>`, left+user, y+2, system, bar-6)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%.1f</text>`+"\n", left+user+system+6, y+14, c.micros())
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#555">dark: user, light: system</text></svg>`+"\n", left, height-8)
	return b.Bytes()
}
