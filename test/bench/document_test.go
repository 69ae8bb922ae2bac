package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/performance.md and its pictures anew, of testdata")

const docs = "../../docs"

// TestDocument: the tables and the pictures of docs/performance.md are of the run in testdata.
func TestDocument(t *testing.T) {
	r, err := readRun("testdata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	was, err := recorded()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(docs, "performance.md")
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	is := string(raw)
	for mark, tables := range map[string][]func(io.Writer){
		"goals": {r.goals}, "memory": {r.memories}, "idle": {r.wakeups}, "speeds": {r.speeds, r.remarks}, "instructions": {was.table}, "exchanges": {exchangesTable(t)},
	} {
		var b bytes.Buffer
		if err := aligned(&b, tables...); err != nil {
			t.Fatal(err)
		}
		block := regexp.MustCompile("(?s)<!-- " + mark + " -->\n```\n.*?```\n")
		if len(block.FindAllString(is, -1)) != 1 {
			t.Errorf("%s does not have one block with the mark %q", name, mark)
		}
		text := "<!-- " + mark + " -->\n```\n" + strings.TrimRight(b.String(), "\n") + "\n```\n"
		is = block.ReplaceAllLiteralString(is, text)
	}
	same(t, name, is)
	for _, c := range r.charts() {
		if !strings.Contains(is, "]("+c.file+")") {
			t.Errorf("%s does not show %s", name, c.file)
		}
		for _, v := range c.curves {
			if len(v.points) < 2 {
				t.Errorf("%s has %d points of %s", c.file, len(v.points), v.name)
			}
		}
		same(t, filepath.Join(docs, c.file), c.svg())
	}
}

// same compares a file with what it should be, or writes it.
func same(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil { //nolint:gosec // everybody may look
			t.Fatal(err)
		}
		return
	}
	if is, err := os.ReadFile(name); err != nil || string(is) != want {
		t.Errorf("%s is not of the run that is recorded (%v); go test ./test/bench -run TestDocument -update makes it", name, err)
	}
}

// TestGoals: each goal finds what it is about in the run in testdata, and is met or missed
// by its number.
func TestGoals(t *testing.T) {
	t.Parallel()
	r, err := readRun("testdata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	reached := slices.ContainsFunc(r.rows, func(o Row) bool { return o.Gate == incumbentName && o.Present >= goalMost })
	for _, g := range goals {
		if late := !reached && strings.Contains(g.what, incumbentName); late && strings.Contains(g.what, grouped(goalMost)) {
			continue // it did not come so far in its time
		}
		if got, measured := g.got(r); !measured || got <= 0 {
			t.Errorf("%s: %v, %v", g.what, got, measured)
		}
		if _, measured := g.got(&report{plans: full}); measured {
			t.Errorf("%s is measured without measurements", g.what)
		}
		if seen[g.what] {
			t.Errorf("two goals are %q", g.what)
		}
		seen[g.what] = true
		if !g.met(g.want) || g.met(g.want*0.9) == !g.atMost || g.met(g.want*1.1) == g.atMost {
			t.Errorf("%s: at most %v, but otherwise judged", g.what, g.atMost)
		}
	}
}

// TestRun: what is kept is what is read.
func TestRun(t *testing.T) {
	t.Parallel()
	r := &report{plans: full, memory: map[string]int{oursName: 5}, other: "none",
		rows: []Row{{Gate: oursName, Measure: measureAdd, Level: 50, PSS: 3}}, footprint: []Footprint{{When: whenIdle, Peak: 4}},
		idleness: []Idleness{{Backend: "nftables", Wakes: 7}}}
	name := filepath.Join(t.TempDir(), "run.json")
	if err := r.keep(name); err != nil {
		t.Fatal(err)
	}
	back, err := readRun(name)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := json.Marshal(Run{r.other, r.memory, r.rows, r.footprint, r.idleness})
	b, errB := json.Marshal(Run{back.other, back.memory, back.rows, back.footprint, back.idleness})
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("%s, want %s", b, a)
	}
}
