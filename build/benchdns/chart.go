package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// chart is a picture of horizontal bars in groups. Each bar is a row of parts,
// one after the other, and carries their sum as text.
type chart struct {
	title, sub string
	series     []string // what the bars of a group are, in order
	parts      []string // what the parts of a bar are, in order
	groups     []group
}

// group is the bars of one label; note stands in the place of bars that do not
// exist.
type group struct {
	label, note string
	bars        [][]float64
}

// Sizes of the picture, in pixels.
const (
	chartWidth  = 860
	chartLeft   = 110 // room for labels
	chartRight  = 130 // room for the numbers after the longest bar
	chartTop    = 92
	barHeight   = 13
	barGap      = 3
	groupGap    = 12
	chartBottom = 40
)

// A series has two shades, one for each part: they stay apart in print and for
// readers who do not tell red from green.
var shades = [][]string{{"#0b5394", "#6fa8dc"}, {"#b45f06", "#f6b26b"}, {"#38761d", "#93c47d"}}

// writeChart writes c as SVG with its own white background, for pages of any
// colour.
func writeChart(out io.Writer, c chart) {
	longest := 0.0
	height := chartTop
	for _, g := range c.groups {
		for _, bar := range g.bars {
			longest = max(longest, sum(bar))
		}
		height += groupHeight(g) + groupGap
	}
	step := niceStep(longest)
	scale := float64(chartWidth-chartLeft-chartRight) / max(longest, step)
	bottom := height
	height += chartBottom

	p := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	p(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222">`,
		chartWidth, height, chartWidth, height)
	p(`<title>%s</title>`, escape(c.title))
	p(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	p(`<text x="16" y="26" font-size="17" font-weight="bold">%s</text>`, escape(c.title))
	p(`<text x="16" y="46" fill="#555">%s</text>`, escape(c.sub))
	x := 16
	for i, series := range c.series {
		for j, part := range c.parts {
			text := series + ", " + part
			p(`<rect x="%d" y="60" width="12" height="12" fill="%s"/><text x="%d" y="70">%s</text>`,
				x, shade(i, j), x+17, escape(text))
			x += 17 + 7*len(text) + 18
		}
	}
	for v := 0.0; v <= longest+step/1000; v += step {
		at := chartLeft + v*scale
		p(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#dddddd"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g</text>`,
			at, chartTop-6, at, bottom, at, bottom+16, v)
	}
	y := chartTop
	for _, g := range c.groups {
		middle := y + groupHeight(g)/2 + 4
		p(`<text x="%d" y="%d" text-anchor="end" font-weight="bold">%s</text>`, chartLeft-10, middle, escape(g.label))
		if g.note != "" {
			p(`<text x="%d" y="%d" fill="#777" font-style="italic">%s</text>`, chartLeft+4, middle, escape(g.note))
		}
		for i, bar := range g.bars {
			at, top := float64(chartLeft), y+i*(barHeight+barGap)
			for j, value := range bar {
				p(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, at, top, value*scale, barHeight, shade(i, j))
				at += value * scale
			}
			p(`<text x="%.1f" y="%d">%.1f</text>`, at+5, top+barHeight-2, sum(bar))
		}
		y += groupHeight(g) + groupGap
	}
	p(`</svg>`)
}

func groupHeight(g group) int {
	n := max(1, len(g.bars))
	return n*barHeight + (n-1)*barGap
}

func shade(series, part int) string {
	of := shades[series%len(shades)]
	return of[part%len(of)]
}

func sum(values []float64) float64 {
	s := 0.0
	for _, v := range values {
		s += v
	}
	return s
}

// niceStep returns a distance of grid lines, 1, 2 or 5 times a power of ten, that
// gives at most eight of them.
func niceStep(longest float64) float64 {
	if longest <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(longest/8)))
	for _, f := range []float64{1, 2, 5} {
		if longest/(f*power) <= 8 {
			return f * power
		}
	}
	return 10 * power
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
