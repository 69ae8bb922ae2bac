package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if sort := os.Getenv(floorEnv); sort != "" {
		fmt.Fprintln(os.Stderr, serveFloor(sort))
		os.Exit(1)
	}
	if os.Getenv(keeperEnv) != "" {
		os.Exit(keep(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestSmall runs the whole benchmark with few mappings: it must not rot, and what
// it says of rates is worth nothing unless what it checks holds.
func TestSmall(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	p := plan{levels: []int{10, 20}, slice: 10 * time.Millisecond, fill: 10 * time.Second, batch: 10}
	small := plans{p, p, p, p, p, p, p, p}
	var out, progress bytes.Buffer
	if err := run(t.Context(), small, []string{"-json"}, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	var got struct {
		Incumbent string
		Rows      []Row
		Memory    []Footprint
		Idle      []Idleness
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	gates := []string{oursName, engineName, kernelName, recoveryName, largeName}
	if got.Incumbent != errAbsent.Error() {
		gates = append(gates, incumbentName, besideName)
	}
	for _, gate := range gates {
		for _, level := range p.levels {
			if !slices.ContainsFunc(got.Rows, func(r Row) bool { return r.Gate == gate && r.Level == level }) {
				t.Errorf("no row of %s with %d mappings", gate, level)
			}
		}
	}
	for _, r := range got.Rows {
		if r.Count == 0 || r.PerSecond <= 0 || r.Present != r.Level {
			t.Errorf("not a measurement: %+v", r)
		}
	}
	if want := len([]string{whenIdle, "started anew", whenRepaired, whenListed, whenReloaded, "one process"}) + len(p.levels) + len(floods); len(got.Memory) != want {
		t.Errorf("the memory was measured %d times, want %d", len(got.Memory), want)
	}
	for _, f := range got.Memory {
		if rises := slices.Contains([]string{whenRepaired, whenListed, whenReloaded}, f.When); rises && f.Peak < f.PSS {
			t.Errorf("the peak is less than what is left: %+v", f)
		}
		if f.Processes == 0 || f.PSS < 1<<10 || f.Private >= f.PSS {
			t.Errorf("not a measurement: %+v", f)
		}
	}
	if len(got.Idle) == 0 || got.Idle[0].Backend != idleHomes[0].backend {
		t.Errorf("idle daemons: %+v", got.Idle)
	}
	for _, i := range got.Idle {
		if i.Processes != 2 || i.Seconds <= 0 || i.Wakes < 0 {
			t.Errorf("not a measurement: %+v", i)
		}
	}
	r := report{plans: small, whole: true, rows: got.Rows, footprint: got.Memory, idleness: got.Idle}
	var table bytes.Buffer
	if err := r.text(&table); err != nil {
		t.Fatal(err)
	}
	for _, f := range got.Memory {
		if !strings.Contains(table.String(), f.When) {
			t.Errorf("the table does not show %q", f.When)
		}
	}
	for _, i := range got.Idle {
		if !strings.Contains(table.String(), i.Backend) {
			t.Errorf("the table does not show %q", i.Backend)
		}
	}
	for _, l := range slices.Concat(gateLines, engineLines, recoveryLines, largeLines) {
		if !strings.Contains(table.String(), l.measure) {
			t.Errorf("the table does not show %q", l.measure)
		}
	}
	for _, g := range goals {
		if !strings.Contains(table.String(), g.what) {
			t.Errorf("the table does not show the goal %q", g.what)
		}
	}
}

// TestCheckFinds: a benchmark that counts what is not there must fail.
func TestCheckFinds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root; TestSmall fails without it in CI")
	}
	exe, done, err := program()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	g, err := startOurs(t.Context(), exe)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	}()
	p := plan{fill: time.Minute}
	if err := g.fillTo(t.Context(), p, 5, func(Row) {}); err != nil {
		t.Fatal(err)
	}
	if err := g.check(t.Context()); err != nil {
		t.Error(err)
	}
	for _, g.held = range []int{4, 6} {
		if err := g.check(t.Context()); err == nil {
			t.Errorf("5 mappings pass for %d", g.held)
		}
	}
	// A request that is refused is no measurement: this one is for another host.
	if err := <-g.hosts[1].Go(func() error { return g.soap[1].remove(g.ports[0]) }); err == nil {
		t.Error("a refusal passes for a removal")
	}
}

func TestMiddle(t *testing.T) {
	t.Parallel()
	at := func(n int) sample { return sample{Count: n, Elapsed: time.Second} }
	if got := middle([]sample{at(900), at(1), at(30)}); got.Count != 30 {
		t.Errorf("the middle one has %d", got.Count)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 20_000: "20,000", 1_234_567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is written %q", n, got)
		}
	}
	if got := ratio(1999, 2000); got != "1.00" {
		t.Errorf("ratio %q", got)
	}
	if got := ratio(31_300, 14); got != "2,236" {
		t.Errorf("ratio %q", got)
	}
	if got := ratio(1, 0); got != "" {
		t.Errorf("ratio %q", got)
	}
}
