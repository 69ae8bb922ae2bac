package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// timeLimit is for everything; what has not been measured by then fails.
const timeLimit = 15 * time.Minute

func main() {
	if sort := os.Getenv(floorEnv); sort != "" {
		fmt.Fprintln(os.Stderr, "bench: floor:", serveFloor(sort))
		os.Exit(1)
	}
	if os.Getenv(keeperEnv) != "" {
		os.Exit(keep(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	err := run(ctx, full, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plans are how much is measured of everybody.
type plans struct{ ours, incumbent, engine, recovery, large, memory, idle, floor plan }

// full is the benchmark. The incumbent gets slower and slower, so its last level
// is lower and the time it may take to get there bounded.
var full = plans{
	ours: plan{
		levels: []int{goalHome, goalFew, 1_000, goalMany, goalMost, 5_000, 20_000},
		slice:  150 * time.Millisecond, fill: time.Minute, batch: 200,
	},
	incumbent: plan{
		levels: []int{goalHome, goalFew, 1_000, goalMany, goalMost},
		slice:  150 * time.Millisecond, fill: 150 * time.Second, batch: 200,
	},
	engine:   plan{levels: []int{100, 20_000}, slice: 100 * time.Millisecond, batch: 200},
	recovery: plan{levels: []int{100, 20_000}, fill: time.Minute},
	large:    plan{levels: []int{60_000}},
	memory:   plan{levels: []int{100, 1_000, 2_300, 5_000, goalMemory}, slice: 3 * time.Second, fill: time.Minute},
	idle:     plan{slice: 2 * time.Minute},
	floor:    plan{levels: []int{goalFew}, slice: 500 * time.Millisecond},
}

// parts are what is measured, in this order.
var parts = []string{oursName, incumbentName, engineName, kernelName, floorName, recoveryName, largeName, memoryName, idleName}

func (r *report) measure(ctx context.Context, part, exe string) error {
	switch part {
	case oursName:
		return r.ours(ctx, exe, r.plans.ours)
	case engineName:
		return playEngine(ctx, r.plans.engine, r.tell)
	case kernelName:
		return playKernel(ctx, r.plans.engine, r.tell)
	case floorName:
		return r.playFloor(ctx, r.plans.floor)
	case recoveryName:
		return r.recovery(ctx, exe, r.plans.recovery)
	case largeName:
		return r.large(ctx, exe, r.plans.large)
	case memoryName:
		return r.footprints(ctx, exe, r.plans.memory)
	case idleName:
		return r.idle(ctx, exe, r.plans.idle)
	case instructionsName:
		return r.countInstructions(ctx, exe)
	case incumbentName:
		return r.incumbent(ctx, exe, r.plans.incumbent)
	}
	return fmt.Errorf("there is no such part; %s are", strings.Join(append(parts, instructionsName), ", "))
}

func run(ctx context.Context, p plans, args []string, out, progress io.Writer) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(progress)
	asJSON := f.Bool("json", false, "print JSON")
	keep := f.String("keep", "", "write JSON to this `file` as well")
	from := f.String("from", "", "measure nothing, and print what is in this `file` of -keep")
	plots := f.String("plots", "", "draw the pictures into this `directory`")
	record := f.String("record", "", "write the instructions to this `file`, and compare with nothing")
	only := f.String("only", strings.Join(parts, ","), "what to measure; "+instructionsName+" as well")
	f.StringVar(&p.ours.only, "measure", "", "measure only what has these words in its name, of both daemons")
	f.DurationVar(&p.ours.slice, "slice", p.ours.slice, "how long each measurement of a daemon takes")
	level := f.Int("level", 0, "measure daemons with so many mappings only (0: all levels)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *level > 0 {
		p.ours.levels, p.incumbent.levels = []int{*level}, []int{*level}
	}
	p.incumbent.only, p.incumbent.slice = p.ours.only, p.ours.slice
	r := &report{plans: p, progress: progress, memory: make(map[string]int)}
	var err error
	if *from != "" {
		r, err = readRun(*from)
	} else {
		r.whole = *only == strings.Join(parts, ",")
		err = r.all(ctx, strings.Split(*only, ","))
	}
	if err != nil {
		return err
	}
	if *keep != "" {
		err = r.keep(*keep)
	}
	if *plots != "" {
		err = errors.Join(err, r.plot(*plots))
	}
	if *asJSON {
		return errors.Join(err, r.json(out), r.broken())
	}
	return errors.Join(err, r.text(out), r.judge(*record))
}

// all measures parts, in their order.
func (r *report) all(ctx context.Context, parts []string) error {
	exe, done, err := program()
	if err != nil {
		return err
	}
	defer done()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// Daemons that are idle disturb nobody, and have the time of all others to be so.
	beside, ended := &report{plans: r.plans, progress: new(bytes.Buffer)}, make(chan error, 1)
	if slices.Contains(parts, idleName) && len(parts) > 1 {
		parts = slices.DeleteFunc(parts, func(p string) bool { return p == idleName })
		go func() { ended <- beside.measure(ctx, idleName, exe) }()
	} else {
		ended <- nil
	}
	for _, part := range parts {
		fmt.Fprintf(r.progress, "measuring %s\n", part)
		if failed := r.measure(ctx, part, exe); failed != nil {
			err = fmt.Errorf("%s: %w", part, failed)
			stop()
			break
		}
	}
	err = errors.Join(err, <-ended)
	fmt.Fprint(r.progress, beside.progress)
	r.idleness = append(r.idleness, beside.idleness...)
	return err
}

// judge returns an error about each promise that does not hold.
func (r *report) judge(record string) error {
	if r.instructions == nil {
		return r.broken()
	}
	if record != "" {
		return r.instructions.record(record)
	}
	was, err := recorded()
	if err != nil {
		return err
	}
	return errors.Join(r.broken(), r.instructions.more(was))
}

// program returns the binary that is measured: PORTCULLIS, or one that is built
// now. done removes the latter.
func program() (exe string, done func(), err error) {
	if exe = os.Getenv("PORTCULLIS"); exe != "" {
		return exe, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	if err != nil {
		return "", nil, err
	}
	exe = filepath.Join(dir, "portcullis")
	if out, err := exec.Command("go", "build", "-o", exe, "portcullis/cmd/portcullis").CombinedOutput(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("build: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return exe, func() { _ = os.RemoveAll(dir) }, nil
}
