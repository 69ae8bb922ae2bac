package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// A chart shows how something goes with the number of mappings. Both axes are logarithmic.
type chart struct {
	file, title, unit string
	curves            []curve
}

// A curve is of one daemon.
type curve struct {
	name, colour string
	points       []point
}

type point struct{ mappings, value float64 }

// The colours of daemons, on white.
const (
	oursColour  = "#1a7f37"
	otherColour = "#cf222e"
)

// charts are the pictures of docs/performance.md.
func (r *report) charts() []chart {
	rate := func(o Row) float64 { return o.PerSecond }
	wait := func(o Row) float64 { return 1e6 / o.PerSecond }
	both := func(measure string, value func(Row) float64) []curve {
		return []curve{
			{oursName, oursColour, r.points(oursName, measure, value)},
			{incumbentName, otherColour, r.points(incumbentName, measure, value)},
		}
	}
	var memory []point
	for _, f := range r.footprint {
		if f.Mappings > 1 && f.When == whenMapped(f.Mappings) {
			memory = append(memory, point{float64(f.Mappings), mb(f.PSS)})
		}
	}
	return []chart{
		{"rate.svg", "New mappings a second, by UPnP, one client", "", both(measureAdd, rate)},
		{"memory.svg", "Memory of all processes (PSS)", "MB", []curve{
			{oursName, oursColour, memory},
			{incumbentName, otherColour, r.points(incumbentName, measureFill, func(o Row) float64 { return mb(o.PSS) })},
		}},
		{"first-packet.svg", "A connection from the Internet through the last mapping, until the first packet is answered", "µs", both(measureLast, wait)},
	}
}

// points returns a gate's measurements by one client, as they are in the rows: by the number
// of mappings.
func (r *report) points(gate, measure string, value func(Row) float64) (all []point) {
	levels := r.plans.ours.levels
	for _, level := range levels {
		if row, found := r.find(gate, measure, level, 1); found && value(row) > 0 {
			all = append(all, point{float64(row.Present), value(row)})
		}
	}
	return all
}

// plot draws all charts into a directory.
func (r *report) plot(dir string) error {
	for _, c := range r.charts() {
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.svg()), 0o644); err != nil { //nolint:gosec // everybody may look
			return err
		}
	}
	return nil
}

// An axis leads from the logarithms of the least and the most to pixels.
type axis struct{ low, high, from, to float64 }

func (a axis) at(f float64) float64 {
	return a.from + (math.Log10(f)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// ticks are the powers of ten, and their twice and five times, within the axis.
func (a axis) ticks() (all []float64) {
	for e := math.Floor(a.low); e <= a.high; e++ {
		for _, m := range []float64{1, 2, 5} {
			if f := m * math.Pow(10, e); math.Log10(f) >= a.low-1e-9 && math.Log10(f) <= a.high+1e-9 {
				all = append(all, f)
			}
		}
	}
	return all
}

// axes returns those that all points fit on, rounded outward.
func (c chart) axes() (x, y axis) {
	x = axis{math.Inf(1), math.Inf(-1), chartLeft, chartRight}
	y = axis{math.Inf(1), math.Inf(-1), chartBottom, chartTop}
	for _, v := range c.curves {
		for _, p := range v.points {
			for a, f := range map[*axis]float64{&x: p.mappings, &y: p.value} {
				a.low, a.high = min(a.low, math.Log10(f)), max(a.high, math.Log10(f))
			}
		}
	}
	x.low, x.high = x.low-0.05, x.high+0.05
	y.low, y.high = y.low-0.15, y.high+0.15
	return x, y
}

// Where a chart is in its picture.
const (
	chartWidth, chartHeight = 720, 320
	chartLeft, chartRight   = 64, 700
	chartTop, chartBottom   = 52, 276
	labelApart              = 44 // pixels between numbers at a curve, at least
)

func (c chart) svg() string {
	x, y := c.axes()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="t">
<title id="t">%[3]s, with more and more mappings, of %[4]s</title>
<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .head { font-weight: bold; font-size: 15px } .axis { fill: #59636e }
line { stroke: #d1d9e0 } polyline { fill: none; stroke-width: 2.5 }
</style>
<rect width="%[1]d" height="%[2]d" rx="8" fill="#fff"/>
<text class="head" x="16" y="26">%[3]s</text>
`, chartWidth, chartHeight, html.EscapeString(c.title), html.EscapeString(c.names()))
	for _, f := range x.ticks() {
		fmt.Fprintf(&b, "<line x1=\"%.1[1]f\" x2=\"%.1[1]f\" y1=\"%[2]d\" y2=\"%[3]d\"/><text class=\"axis\" text-anchor=\"middle\" x=\"%.1[1]f\" y=\"%[4]d\">%[5]s</text>\n",
			x.at(f), chartTop, chartBottom, chartBottom+18, written(f))
	}
	fmt.Fprintf(&b, "<text class=\"axis\" text-anchor=\"middle\" x=\"%d\" y=\"%d\">mappings</text>\n", (chartLeft+chartRight)/2, chartBottom+36)
	for _, f := range y.ticks() {
		fmt.Fprintf(&b, "<line x1=\"%[1]d\" x2=\"%[2]d\" y1=\"%.1[3]f\" y2=\"%.1[3]f\"/><text class=\"axis\" text-anchor=\"end\" x=\"%[4]d\" y=\"%.1[5]f\">%[6]s</text>\n",
			chartLeft, chartRight, y.at(f), chartLeft-6, y.at(f)+4, written(f))
	}
	if c.unit != "" {
		fmt.Fprintf(&b, "<text class=\"axis\" text-anchor=\"end\" x=\"%d\" y=\"%d\">%s</text>\n", chartLeft-6, chartTop-8, c.unit)
	}
	for i, v := range c.curves {
		fmt.Fprintf(&b, "<text text-anchor=\"end\" x=\"%d\" y=\"%d\" style=\"fill:%s\">%s</text>\n", chartRight-100*(len(c.curves)-1-i), chartTop-26, v.colour, v.name)
		c.draw(&b, v, x, y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw draws a curve, with its numbers on the side where there is no other.
func (c chart) draw(b *strings.Builder, v curve, x, y axis) {
	fmt.Fprintf(b, "<polyline style=\"stroke:%s\" points=\"", v.colour)
	for _, p := range v.points {
		fmt.Fprintf(b, "%.1f,%.1f ", x.at(p.mappings), y.at(p.value))
	}
	b.WriteString("\"/>\n")
	for i, p := range v.points {
		fmt.Fprintf(b, "<circle r=\"3\" cx=\"%.1f\" cy=\"%.1f\" style=\"fill:%s\"/>", x.at(p.mappings), y.at(p.value), v.colour)
		if i+1 < len(v.points) && x.at(v.points[i+1].mappings)-x.at(p.mappings) < labelApart {
			b.WriteByte('\n')
			continue
		}
		below := -8.0
		if c.beneathOther(v, p) {
			below = 18
		}
		fmt.Fprintf(b, "<text text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\" style=\"fill:%s\">%s</text>\n",
			x.at(p.mappings), y.at(p.value)+below, v.colour, written(p.value))
	}
}

// beneathOther reports whether another curve is above a point.
func (c chart) beneathOther(v curve, p point) bool {
	for _, o := range c.curves {
		for _, q := range o.points {
			if o.name != v.name && q.mappings == p.mappings {
				return q.value > p.value
			}
		}
	}
	return false
}

func (c chart) names() string {
	var all []string
	for _, v := range c.curves {
		all = append(all, v.name)
	}
	return strings.Join(all, " and ")
}

// written writes a number with the digits that count.
func written(f float64) string {
	if f >= 10 || f == math.Trunc(f) {
		return grouped(int(math.Round(f)))
	}
	return fmt.Sprintf("%.2g", f)
}
