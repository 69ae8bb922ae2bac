package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// How many instructions a request takes, counted by valgrind: a number that another machine
// of the same kind, or a busy one, gives as well. It is of the whole program without the
// kernel's part, in one process without sandbox, since valgrind makes calls that the sandbox
// refuses; what passes between two processes is not in it, nor is the garbage collector,
// which begins when it likes.
const (
	instructionsName  = "instructions"
	instructionsMost  = 1.1                     // of what is recorded
	instructionsEach  = 150                     // requests of one count
	instructionsTimes = 3                       // the least counts: what disturbs is more
	instructionsRest  = 1200 * time.Millisecond // until the kernel knows what was told later (firewall/late.go)
	restoredMappings  = 1_000
	refusedPort       = 445 // no household wants it outside
)

// recordedInstructions is what a request may take and a tenth more.
//
//go:embed testdata/instructions.json
var recordedInstructions []byte

// Instructions are those of a program for one processor.
type Instructions struct {
	Arch string        `json:"arch"`
	Go   string        `json:"go"`
	Each []Instruction `json:"each"`
}

// Instruction is how many one of something takes.
type Instruction struct {
	What  string `json:"what"`
	Count int    `json:"count"`
}

// What is counted, beside the measures of the same names.
const (
	countedRead    = "GetSpecificPortMappingEntry"
	countedRefusal = "AddPortMapping, refused"
	countedRestore = "a start with 1,000 mappings"
)

// counter is valgrind around a program.
type counter struct{ dir, exe string }

func newCounter(exe string) (*counter, error) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		return nil, fmt.Errorf("test/install bench installs it: %w", err)
	}
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	return &counter{dir, exe}, err
}

func (c *counter) close() error { return os.RemoveAll(c.dir) }

// program makes one that is ours under a tool of valgrind's.
func (c *counter) program(tool string) (string, error) {
	name := filepath.Join(c.dir, "run")
	script := fmt.Sprintf("#!/bin/sh\nGOGC=off GOMAXPROCS=1 GODEBUG=asyncpreemptoff=1 exec valgrind %s --trace-children=yes "+
		"--log-file='%s/log' '%s' \"$@\"\n", tool, c.dir, c.exe)
	return name, os.WriteFile(name, []byte(script), 0o700) //nolint:gosec // it is run
}

// Callgrind counts from one dump to the next. It cannot follow a signal that interrupts a
// goroutine: there is none by the runtime, and the daemon is killed in the end.
func (c *counter) callgrind() (string, error) {
	return c.program("--tool=callgrind --callgrind-out-file='" + c.dir + "/count'")
}

// Cachegrind counts a whole life, several times faster, which a start needs: the daemon does
// not wait for the kernel for ever.
func (c *counter) cachegrind() (string, error) {
	return c.program("--tool=cachegrind --cache-sim=no --cachegrind-out-file='" + c.dir + "/count'")
}

// dump returns how many instructions a process has run since the last dump.
func (c *counter) dump(ctx context.Context, pid int) (int, error) {
	if out, err := exec.CommandContext(ctx, "callgrind_control", "--dump", strconv.Itoa(pid)).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("callgrind_control: %w: %s", err, out)
	}
	return c.read("totals: ")
}

// read returns the sum in the files that there are, and removes them.
func (c *counter) read(key string) (total int, err error) {
	files, err := filepath.Glob(filepath.Join(c.dir, "count*"))
	if err != nil {
		return 0, err
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		for line := range bytes.Lines(raw) {
			if digits, found := bytes.CutPrefix(line, []byte(key)); found {
				n, err := strconv.Atoi(strings.TrimSpace(string(digits)))
				if err != nil {
					return 0, err
				}
				total += n
			}
		}
		if err := os.Remove(name); err != nil {
			return 0, err
		}
	}
	if total == 0 {
		return 0, errors.New("valgrind has counted nothing")
	}
	return total, nil
}

// whole lets valgrind run what the sandbox would refuse.
const whole = limits + "[sandbox]\nmode = \"off\"\n"

// countInstructions counts all.
func (r *report) countInstructions(ctx context.Context, exe string) error {
	c, err := newCounter(exe)
	if err != nil {
		return err
	}
	r.instructions = &Instructions{Arch: runtime.GOARCH, Go: runtime.Version()}
	return errors.Join(r.countRequests(ctx, c), r.countRestore(ctx, c), c.close())
}

// countRequests counts what a daemon is asked.
func (r *report) countRequests(ctx context.Context, c *counter) (err error) {
	exe, err := c.callgrind()
	if err != nil {
		return err
	}
	g, err := startWith(ctx, exe, whole)
	if err != nil {
		return err
	}
	g.name, g.stop = instructionsName, g.daemon.Kill
	defer func() { err = r.end(g, err) }()
	soap, pmp := g.soap[0], g.natpmp[0]
	first, other := g.ports, g.ports[instructionsTimes*instructionsEach:] // one protocol's, and the other's
	if err := rest(ctx); err != nil {                                     // until it has begun all that it does by itself
		return err
	}
	for _, e := range []struct {
		what  string
		ports []uint16
		do    func(port uint16) error
	}{
		{measureAdd, first, soap.add},
		{measureRenew, first, soap.add},
		{countedRead, first, soap.specific},
		{countedRefusal, other, func(port uint16) error { return refused(soap.request("AddPortMapping", port, refusedPort)) }},
		{measurePMPAdd, other, pmp.add},
		{measurePMPRenew, other, pmp.add},
	} { // no deletions: how many flows are looked through for one depends on the time
		count, err := g.countEach(ctx, c, e.ports, e.do)
		if err != nil {
			return fmt.Errorf("%s: %w", e.what, err)
		}
		r.counted(e.what, count)
	}
	return nil
}

// countEach returns how many instructions one of something takes, of many.
func (g *gate) countEach(ctx context.Context, c *counter, ports []uint16, do func(port uint16) error) (least int, err error) {
	for turn := range instructionsTimes {
		if _, err := c.dump(ctx, g.pid); err != nil {
			return 0, err
		}
		err := <-g.hosts[0].Go(func() (err error) {
			for i := 0; i < instructionsEach && err == nil; i++ {
				err = do(ports[turn*instructionsEach+i])
			}
			return err
		})
		if err == nil {
			err = rest(ctx)
		}
		if err != nil {
			return 0, err
		}
		n, err := c.dump(ctx, g.pid)
		if err != nil {
			return 0, err
		}
		if n /= instructionsEach; turn == 0 || n < least {
			least = n
		}
	}
	return least, nil
}

// rest waits until nothing is left to do of what was asked.
func rest(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(instructionsRest):
		return nil
	}
}

// countRestore counts what a start with mappings takes more than one without.
func (r *report) countRestore(ctx context.Context, c *counter) error {
	exe, err := c.cachegrind()
	if err != nil {
		return err
	}
	least := make(map[int]int)
	for _, mappings := range []int{0, restoredMappings, 0, restoredMappings} {
		n, err := r.start(ctx, c, exe, mappings)
		if err != nil {
			return err
		}
		if was, again := least[mappings]; !again || n < was {
			least[mappings] = n
		}
	}
	r.counted(countedRestore, least[restoredMappings]-least[0])
	return nil
}

// start counts a daemon from its start until it hands over to the next.
func (r *report) start(ctx context.Context, c *counter, exe string, mappings int) (count int, err error) {
	g, err := startConfigured(ctx, c.exe, behindRouter+whole)
	if err != nil {
		return 0, err
	}
	g.name = instructionsName
	defer func() { err = r.end(g, err) }()
	if err := g.plant(ctx, g.many(mappings)); err != nil {
		return 0, err
	}
	if err := g.again(ctx, exe); err != nil {
		return 0, err
	}
	if n, err := g.kernel(); err != nil || n != mappings {
		return 0, fmt.Errorf("the kernel holds %d mappings, want %d (%v)", n, mappings, err)
	}
	if err := g.daemon.HandOver(); err != nil {
		return 0, err
	}
	return c.read("summary: ")
}

func (r *report) counted(what string, n int) {
	r.instructions.Each = append(r.instructions.Each, Instruction{what, n})
	fmt.Fprintf(r.progress, "  %-36s %12s instructions\n", what, grouped(n))
}

// refused wants a refusal, and nothing else.
func refused(err error) error {
	var code refusedError
	if errors.As(err, &code) {
		return nil
	}
	return fmt.Errorf("not a refusal: %v", err)
}

// recorded returns what is recorded.
func recorded() (was Instructions, err error) {
	d := json.NewDecoder(bytes.NewReader(recordedInstructions))
	d.DisallowUnknownFields()
	return was, d.Decode(&was)
}

// more returns an error about each count that is more than what is recorded allows.
func (now *Instructions) more(was Instructions) (err error) {
	if now.Arch != was.Arch {
		return fmt.Errorf("what is recorded is of %s, and this is %s", was.Arch, now.Arch)
	}
	for _, n := range now.Each {
		old := was.of(n.What)
		if old == 0 {
			err = errors.Join(err, fmt.Errorf("%s: nothing is recorded", n.What))
		} else if float64(n.Count) > instructionsMost*float64(old) {
			err = errors.Join(err, fmt.Errorf("%s: %s instructions, %s are recorded", n.What, grouped(n.Count), grouped(old)))
		}
	}
	for _, old := range was.Each {
		if now.of(old.What) == 0 {
			err = errors.Join(err, fmt.Errorf("%s: it was not counted", old.What))
		}
	}
	return err
}

func (all Instructions) of(what string) int {
	for _, e := range all.Each {
		if e.What == what {
			return e.Count
		}
	}
	return 0
}

// table shows the counts alone.
func (all Instructions) table(w io.Writer) {
	fmt.Fprintf(w, "%s, %s\tinstructions\t\n", all.Arch, all.Go)
	for _, e := range all.Each {
		fmt.Fprintf(w, "%s\t%s\t\n", e.What, grouped(e.Count))
	}
}

// write shows the counts beside those that are recorded.
func (now Instructions) write(w io.Writer, was Instructions) {
	fmt.Fprintf(w, "instructions, %s, %s\trecorded\tnow\tnow / recorded\t\n", now.Arch, now.Go)
	for _, e := range now.Each {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", e.What, grouped(was.of(e.What)), grouped(e.Count), ratio(float64(e.Count), float64(was.of(e.What))))
	}
	fmt.Fprintln(w)
}

// record writes the counts where the next run of this program, built anew, compares.
func (now *Instructions) record(path string) error {
	raw, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644) //nolint:gosec // everybody may look
}
