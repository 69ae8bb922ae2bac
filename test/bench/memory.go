package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/control"
)

// Memory of all processes of the daemon together, as /proc/PID/smaps_rollup has it: each
// page is counted once, and a page that others use too in part (proc(5): Pss).
const (
	memoryName = "memory"
	memorySoon = 20 * time.Second // within it, what was only needed to get there is given back
)

// Footprint is the memory of the daemon at some moment, in kB.
type Footprint struct {
	When      string `json:"when"`
	Mappings  int    `json:"mappings"`
	Processes int    `json:"processes"`
	PSS       int    `json:"pss_kb"`
	Private   int    `json:"private_kb"`        // of that, what is no part of a file: it can only be swapped out
	Peak      int    `json:"peak_kb,omitempty"` // the most on the way there
	Most      int    `json:"at_most_kb"`        // 0: no promise is made
	Served    int    `json:"served,omitempty"`  // requests of another client meanwhile
}

// What is promised of it (docs/performance.md).
const (
	mostIdle     = 20 << 10
	mostMapped   = 22 << 10 // with so many:
	mostMappedAt = 1_000
	mostMany     = 50 << 10 // with goalMemory
	mostFlooded  = 40 << 10
)

// footprint measures a process and all that it has started.
func footprint(pid int) (f Footprint, err error) {
	for _, p := range family(pid) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if errors.Is(err, fs.ErrNotExist) && p != pid {
			continue // it has just ended
		}
		if err != nil {
			return f, err
		}
		f.Processes++
		for line := range strings.Lines(string(raw)) {
			words := strings.Fields(line)
			if len(words) != 3 {
				continue
			}
			kb, _ := strconv.Atoi(words[1])
			switch words[0] {
			case "Pss:":
				f.PSS += kb
			case "Pss_Anon:":
				f.Private += kb
			}
		}
	}
	if f.PSS == 0 {
		return f, fmt.Errorf("process %d has no memory", pid)
	}
	return f, nil
}

// family returns a process and its descendants.
func family(pid int) []int {
	all := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range tasks {
		raw, _ := os.ReadFile(name)
		for _, word := range strings.Fields(string(raw)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, family(child)...)
			}
		}
	}
	return all
}

// The moments that others ask for.
const (
	whenIdle     = "idle"
	whenRepaired = "the ruleset was flushed, and the owner's loaded"
	whenListed   = "listed by the owner"
	whenReloaded = "reloaded"
)

func whenMapped(n int) string { return grouped(n) + " mappings" }
func whenAnew(n int) string   { return "started anew with " + grouped(n) }

// footprints measures a daemon with nothing, with mappings, started anew with them, what
// else may take more for a moment, and one with the owner's usual limits that is flooded.
func (r *report) footprints(ctx context.Context, exe string, p plan) error {
	g, err := startWith(ctx, exe, limits)
	if err != nil {
		return err
	}
	g.name = memoryName
	if err = r.remember(ctx, g, whenIdle, mostIdle); err == nil {
		err = r.grow(ctx, exe, g, p)
	}
	if err = r.end(g, err); err != nil {
		return err
	}
	if err = r.undivided(ctx, exe); err != nil {
		return err
	}
	return r.flooded(ctx, exe, p.slice)
}

// grow measures a daemon with more and more mappings. A start gives back what it used.
func (r *report) grow(ctx context.Context, exe string, g *gate, p plan) error {
	for i, level := range p.levels {
		if err := g.fillTo(ctx, p, level, func(Row) {}); err != nil {
			return err
		}
		most := 0
		switch level {
		case mostMappedAt:
			most = mostMapped
		case goalMemory:
			most = mostMany
		}
		if err := r.remember(ctx, g, whenMapped(level), most); err != nil {
			return err
		}
		if level != mostMappedAt && i < len(p.levels)-1 {
			continue
		}
		most = max(mostMapped, r.footprint[len(r.footprint)-1].PSS*5/4) // what is made at once lies scattered
		if _, err := g.restarted(ctx, exe); err != nil {
			return err
		}
		if err := r.rememberPeak(ctx, g, whenAnew(level), most); err != nil {
			return err
		}
	}
	for _, e := range []struct {
		when string
		do   func() error
	}{
		{whenRepaired, func() error { return g.repaired(ctx) }},
		{whenListed, func() error { _, err := g.listed(ctx); return err }},
		{whenReloaded, func() error { _, err := control.NewClient(g.daemon.Socket).Reload(ctx); return err }},
	} {
		if err := forgetPeaks(g.pid); err != nil {
			return err
		}
		if err := e.do(); err != nil {
			return fmt.Errorf("%s: %w", e.when, err)
		}
		if err := r.rememberPeak(ctx, g, e.when, 0); err != nil {
			return err
		}
	}
	return nil
}

// repaired flushes the ruleset, and waits until the kernel has all mappings again.
func (g *gate) repaired(ctx context.Context) error {
	if err := g.flushed(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recoveryPatience)
	defer cancel()
	for {
		if n, err := g.kernel(); err == nil && n == g.held {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the kernel does not hold %d mappings again: %w", g.held, ctx.Err())
		case <-time.After(recoveryPatience / 100):
		}
	}
}

// forgetPeaks has the kernel begin anew with the most memory of each process (proc(5),
// clear_refs).
func forgetPeaks(pid int) (err error) {
	for _, p := range family(pid) {
		err = errors.Join(err, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p), []byte("5"), 0))
	}
	return err
}

// overNow is how much more memory the processes had at most than they have now, in kB.
func overNow(pid int) (over int, err error) {
	for _, p := range family(pid) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(raw)) {
			name, value, _ := strings.Cut(line, ":")
			kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			switch name {
			case "VmHWM":
				over += kb
			case "VmRSS":
				over -= kb
			}
		}
	}
	return over, nil
}

// rememberPeak is remember, and measures the most on the way.
func (r *report) rememberPeak(ctx context.Context, g *gate, when string, most int) error {
	if err := r.remember(ctx, g, when, most); err != nil {
		return err
	}
	over, err := overNow(g.pid)
	f := &r.footprint[len(r.footprint)-1]
	f.Peak = f.PSS + over
	return err
}

// undivided measures a daemon that is one process.
func (r *report) undivided(ctx context.Context, exe string) error {
	g, err := startWith(ctx, exe, limits+"[sandbox]\nmode = \"single\"\n")
	if err != nil {
		return err
	}
	g.name = memoryName
	return r.end(g, r.remember(ctx, g, "idle, as one process", mostIdle))
}

// remember measures when nothing is given back any more.
func (r *report) remember(ctx context.Context, g *gate, when string, most int) error {
	var f Footprint
	for began, same := time.Now(), 0; same < 4 && time.Since(began) < memorySoon; {
		now, err := footprint(g.pid)
		if err != nil {
			return err
		}
		if same++; 100*max(now.PSS-f.PSS, f.PSS-now.PSS) > 2*now.PSS {
			same = 0
		}
		f = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(r.plans.memory.slice / 3):
		}
	}
	f.When, f.Mappings, f.Most = when, g.held, most
	r.note(f)
	return nil
}

func (r *report) note(f Footprint) {
	r.footprint = append(r.footprint, f)
	fmt.Fprintf(r.progress, "  %s: %.1f MB in %d processes\n", f.When, mb(f.PSS), f.Processes)
}

func mb(kb int) float64 { return float64(kb) / 1024 }

// memories shows them, and what was promised.
func (r *report) memories(w io.Writer) {
	if len(r.footprint) == 0 {
		return
	}
	fmt.Fprint(w, "memory of portcullis, MB\tprocesses\tPSS\tof it private\tpeak\tat most\tserved meanwhile\t\n")
	for _, f := range r.footprint {
		peak, most, served := "", "", ""
		if f.Peak > 0 {
			peak = fmt.Sprintf("%.1f", mb(f.Peak))
		}
		if f.Most > 0 {
			most = fmt.Sprint(f.Most >> 10)
		}
		if f.Served > 0 {
			served = grouped(f.Served)
		}
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%s\t%s\t%s\t\n", f.When, f.Processes, mb(f.PSS), mb(f.Private), peak, most, served)
	}
	fmt.Fprintln(w)
}

// broken returns an error about each promise that does not hold.
func (r *report) broken() (err error) {
	for _, f := range r.footprint {
		if f.Most > 0 && f.PSS > f.Most {
			err = errors.Join(err, fmt.Errorf("%s: %.1f MB, and not %d at most", f.When, mb(f.PSS), f.Most>>10))
		}
	}
	for _, i := range r.idleness {
		if i.Most > 0 && i.perMinute() > float64(i.Most) {
			err = errors.Join(err, fmt.Errorf("idle with %s: woken %.0f times a minute, and not %d at most", i.Backend, i.perMinute(), i.Most))
		}
		if i.Most > 0 && i.Programs {
			err = errors.Join(err, fmt.Errorf("idle with %s: programs were run", i.Backend))
		}
	}
	return err
}
