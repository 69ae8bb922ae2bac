package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report gathers the rows and prints them.
type report struct {
	plans    plans
	progress io.Writer
	rows     []Row
	memory   map[string]int // of the daemons at the end, PSS in kB

	whole        bool // all parts are measured
	footprint    []Footprint
	idleness     []Idleness
	instructions *Instructions // nil: they were not counted
	other        string        // the incumbent's version, or why it is missing
}

func (r *report) tell(row Row) {
	r.rows = append(r.rows, row)
	fmt.Fprintf(r.progress, "  %-36s %6d present, %2d at once: %9.0f/s  (%d in %.2f s, %.0f us of CPU each)\n",
		row.Measure, row.Present, row.Workers, row.PerSecond, row.Count, row.Seconds, row.CPU)
}

// logTail is how much of a failed daemon's log is shown, in bytes.
const logTail = 2000

// end closes a gate, and shows what it has to say about an error.
func (r *report) end(g *gate, err error) error {
	if f, failed := footprint(g.pid); failed == nil {
		r.memory[g.name] = f.PSS
	}
	if err != nil && g.log != nil {
		l := g.log()
		fmt.Fprintf(r.progress, "the end of its log:\n%s\n", l[max(0, len(l)-logTail):])
	}
	return errors.Join(err, g.close())
}

// ours measures two daemons: one with few mappings, and one with more and more
// of them. With the most, the two are measured in turns.
func (r *report) ours(ctx context.Context, exe string, p plan) error {
	few, err := startOurs(ctx, exe)
	if err != nil {
		return err
	}
	if len(p.levels) == 1 {
		return r.end(few, few.climb(ctx, p, p.levels, r.tell))
	}
	many, err := startOurs(ctx, exe)
	if err != nil {
		return r.end(few, err)
	}
	last := len(p.levels) - 1
	err = few.fillTo(ctx, p, p.levels[0], r.tell)
	if err == nil {
		err = many.climb(ctx, p, p.levels[1:last], r.tell)
	}
	if err == nil {
		err = many.fillTo(ctx, p, p.levels[last], r.tell)
	}
	if err == nil {
		err = inTurns(r.tell, few.side(ctx, p, p.levels[0]), many.side(ctx, p, p.levels[last]))
	}
	if err == nil {
		err = errors.Join(few.check(ctx), many.check(ctx))
	}
	return errors.Join(r.end(few, err), r.end(many, err))
}

// incumbent measures it in turns with a daemon of ours, so that a busy machine disturbs both.
func (r *report) incumbent(ctx context.Context, ours string, p plan) error {
	exe, version, err := findIncumbent()
	if errors.Is(err, errAbsent) {
		r.other = err.Error()
		fmt.Fprintln(r.progress, r.other)
		return nil
	}
	r.other = version
	other, err := startIncumbent(ctx, exe)
	if err != nil {
		return err
	}
	beside, err := startOurs(ctx, ours)
	if err != nil {
		return r.end(other, err)
	}
	beside.name, beside.anyRenews = besideName, false // the incumbent has not all of ours
	err = r.climbBeside(ctx, p, beside, other)
	return errors.Join(r.end(beside, err), r.end(other, err))
}

func (r *report) climbBeside(ctx context.Context, p plan, beside, other *gate) error {
	for _, level := range p.levels {
		if other.filled >= p.fill {
			return nil
		}
		for _, g := range []*gate{beside, other} {
			if err := g.fillTo(ctx, p, level, r.tell); err != nil {
				return err
			}
		}
		if err := inTurns(r.tell, beside.side(ctx, p, level), other.side(ctx, p, level)); err != nil {
			return err
		}
		if err := errors.Join(beside.check(ctx), other.check(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) json(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(Run{r.other, r.memory, r.rows, r.footprint, r.idleness})
}

// Run is all that was measured, as JSON.
type Run struct {
	Incumbent string         `json:"incumbent"` // its version, or why it is missing
	MemoryKB  map[string]int `json:"memory_kb"`
	Rows      []Row          `json:"rows"`
	Memory    []Footprint    `json:"memory"`
	Idle      []Idleness     `json:"idle"`
}

// keep writes what was measured to a file.
func (r *report) keep(name string) error {
	var b bytes.Buffer
	if err := r.json(&b); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644) //nolint:gosec // everybody may look
}

func readRun(name string) (*report, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r, err := reportOf(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// reportOf returns the report of an earlier run of the full benchmark.
func reportOf(in io.Reader) (*report, error) {
	var all Run
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return nil, err
	}
	return &report{plans: full, whole: true, rows: all.Rows, memory: all.MemoryKB, footprint: all.Memory, idleness: all.Idle, other: all.Incumbent}, nil
}

func (r *report) find(gate, measure string, level, workers int) (Row, bool) {
	i := slices.IndexFunc(r.rows, func(o Row) bool {
		return o.Gate == gate && o.Measure == measure && o.Level == level && o.Workers == workers
	})
	if i < 0 {
		return Row{}, false
	}
	return r.rows[i], true
}

// line is what a table shows in one line.
type line struct {
	gate    string // "" means the gate of the table
	measure string
	workers int
}

var gateLines = []line{
	{"", measureAdd, 1},
	{"", measureAdd, clients},
	{"", measureRemove, 1},
	{"", measureRemove, clients},
	{"", measureRenew, 1},
	{"", measurePMPAdd, 1},
	{"", measurePMPAdd, clients},
	{"", measurePMPEnd, 1},
	{"", measurePMPRenew, 1},
	{"", measureAny, 1},
	{"", measureSpecific, 1},
	{"", measureGeneric, 1},
	{"", measureFirst, 1},
	{"", measureLast, 1},
}

var engineLines = []line{
	{engineName, measureGrant, 1},
	{engineName, measureGrant, manyAtOnce},
	{engineName, measureEnd, 1},
	{engineName, measureEnd, manyAtOnce},
	{engineName, measureAgain, 1},
	{engineName, measureAgain, manyAtOnce},
	{engineName, measureInside, 1},
	{engineName, measureShared, 1},
	{engineName, measureRemotes, 1},
	{engineName, measureForwards, 1},
	{engineName, measureListening, 1},
	{kernelName, measureBare, 1},
	{floorName, measureNet, 1},
	{floorName, measureCalls, 1},
}

// table is a heading, columns, and what their cells show.
type table struct {
	title   string
	lines   []line
	columns []string
	cell    func(l line, column int) string // "" where there is nothing
}

func (t table) write(w io.Writer) {
	if len(t.columns) == 0 {
		return
	}
	fmt.Fprintf(w, "%s\tat once\t%s\t\n", t.title, strings.Join(t.columns, "\t"))
	for _, l := range t.lines {
		cells := make([]string, len(t.columns))
		for i := range cells {
			cells[i] = t.cell(l, i)
		}
		if strings.Join(cells, "") != "" {
			fmt.Fprintf(w, "%s\t%d\t%s\t\n", l.measure, l.workers, strings.Join(cells, "\t"))
		}
	}
	fmt.Fprintln(w)
}

// text prints everything.
func (r *report) text(out io.Writer) error {
	if err := aligned(out, r.memories, r.wakeups, r.speeds, r.remarks); err != nil || r.instructions == nil && !r.whole {
		return err
	}
	if r.instructions != nil {
		was, err := recorded()
		if err != nil {
			return err
		}
		return aligned(out, func(w io.Writer) { r.instructions.write(w, was) })
	}
	fmt.Fprintln(out)
	return aligned(out, r.goals)
}

// aligned prints tables.
func aligned(out io.Writer, tables ...func(io.Writer)) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for _, t := range tables {
		t(w)
	}
	return w.Flush()
}

// speeds are the tables of rates and times.
func (r *report) speeds(w io.Writer) {
	r.rates(oursName, r.plans.ours.levels, gateLines).write(w)
	r.rates(incumbentName, r.plans.incumbent.levels, gateLines).write(w)
	r.beside().write(w)
	r.processor().write(w)
	r.rates(engineName, r.plans.engine.levels, engineLines).write(w)
	r.recoveries(recoveryName, "milliseconds until packets pass", r.plans.recovery.levels, recoveryLines).write(w)
	r.recoveries(largeName, "milliseconds with many", r.plans.large.levels, largeLines).write(w)
}

// remarks are what is to be known of them.
func (r *report) remarks(w io.Writer) {
	for _, name := range []string{oursName, incumbentName} {
		if kb := r.memory[name]; kb > 0 {
			fmt.Fprintf(w, "Memory of %s at the end: %.1f MB.\n", name, mb(kb))
		}
	}
	if r.other != "" {
		fmt.Fprintf(w, "The incumbent: %s.\n", r.other)
	}
	calls, _ := r.find(floorName, measureCalls, r.plans.floor.levels[0], 1)
	if byNet, measured := r.find(floorName, measureNet, r.plans.floor.levels[0], 1); measured {
		fmt.Fprintf(w, "An answer takes %.0f us of processor time by package net, and %.0f by blocking calls.\n", byNet.CPU, calls.CPU)
	}
	if len(r.rows) > 0 {
		fmt.Fprintf(w, "Each number is the middle one of %d measurements. Those of %s's and the engine's first and last column are of %d, taken in turns; "+
			"so are those of %s, in turns with a daemon of ours that has as many mappings.\n",
			timesAlone, oursName, timesInTurns, incumbentName)
	}
}

// measured returns the levels that a gate came to.
func (r *report) measured(gate string, levels []int) []int {
	return slices.DeleteFunc(slices.Clone(levels), func(n int) bool {
		return !slices.ContainsFunc(r.rows, func(o Row) bool { return o.Gate == gate && o.Level == n })
	})
}

// rates shows one gate: a column for each number of mappings that were there, and
// what is left of the rate from the first to the last.
func (r *report) rates(gate string, levels []int, lines []line) table {
	t := table{title: gate + ", per second", lines: lines}
	if levels = r.measured(gate, levels); len(levels) == 0 {
		return t
	}
	at := func(l line, i int) float64 {
		row, _ := r.find(cmp.Or(l.gate, gate), l.measure, levels[i], l.workers)
		return row.PerSecond
	}
	for _, n := range levels {
		t.columns = append(t.columns, r.reached(gate, n))
	}
	last := len(levels) - 1
	t.columns = append(t.columns, "last / first")
	t.cell = func(l line, i int) string {
		if i > last {
			return ratio(at(l, last), at(l, 0))
		}
		return number(at(l, i))
	}
	return t
}

// reached is a level's heading; a gate that ran out of time had fewer mappings.
func (r *report) reached(gate string, level int) string {
	for _, o := range r.rows {
		if o.Gate == gate && o.Level == level && o.Present != level {
			return grouped(o.Present) + " of " + grouped(level)
		}
	}
	return grouped(level)
}

// recoveries shows how long something takes.
func (r *report) recoveries(gate, title string, levels []int, lines []line) table {
	t := table{title: title, lines: lines}
	levels = r.measured(gate, levels)
	for _, n := range levels {
		t.columns = append(t.columns, grouped(n))
	}
	t.cell = func(l line, i int) string {
		row, _ := r.find(gate, l.measure, levels[i], l.workers)
		return strconv.FormatFloat(1000*row.Seconds, 'f', 0, 64)
	}
	return t
}

// beside shows how many times the incumbent's rate ours is.
func (r *report) beside() table {
	t := table{title: oursName + " / " + incumbentName, lines: gateLines}
	levels := r.measured(incumbentName, r.plans.incumbent.levels)
	for _, n := range levels {
		t.columns = append(t.columns, r.reached(incumbentName, n))
	}
	t.cell = func(l line, i int) string {
		a, _ := r.find(besideName, l.measure, levels[i], l.workers)
		b, _ := r.find(incumbentName, l.measure, levels[i], l.workers)
		return ratio(a.PerSecond, b.PerSecond)
	}
	return t
}

// processor shows the daemons' own processor time, which the speed of the client
// does not touch.
func (r *report) processor() table {
	t := table{title: "us of the daemon's processor time", lines: gateLines}
	type at struct {
		gate  string
		level int
	}
	var columns []at
	for _, g := range []struct {
		name   string
		levels []int
	}{{oursName, r.plans.ours.levels}, {incumbentName, r.plans.incumbent.levels}} {
		levels := r.measured(g.name, g.levels)
		for i, n := range levels {
			if i == 0 || i == len(levels)-1 {
				columns = append(columns, at{g.name, n})
				t.columns = append(t.columns, g.name+", "+r.reached(g.name, n))
			}
		}
	}
	t.cell = func(l line, i int) string {
		row, _ := r.find(columns[i].gate, l.measure, columns[i].level, l.workers)
		return number(row.CPU)
	}
	return t
}

// number rounds; "" means that there is none.
func number(f float64) string {
	if f == 0 {
		return ""
	}
	return grouped(int(math.Round(f)))
}

func ratio(a, b float64) string {
	switch {
	case a == 0 || b == 0:
		return ""
	case a/b >= 10:
		return grouped(int(math.Round(a / b)))
	}
	return strconv.FormatFloat(a/b, 'f', 2, 64)
}

// grouped writes thousands apart.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
