package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"portcullis/internal/netns"
)

// sample is one measurement.
type sample struct {
	Count   int           // what was done
	Elapsed time.Duration // in how long
	CPU     time.Duration // of the daemon's processor time
}

// rate is in operations a second.
func (s sample) rate() float64 {
	if s.Elapsed == 0 {
		return 0
	}
	return float64(s.Count) / s.Elapsed.Seconds()
}

func (s sample) plus(o sample) sample {
	return sample{s.Count + o.Count, s.Elapsed + o.Elapsed, s.CPU + o.CPU}
}

// A machine with two processors is easily disturbed. So everything is measured
// several times and the middle one is shown; and what is compared with one
// another is measured in turns, so that a disturbance meets both.
const (
	timesAlone   = 3
	timesInTurns = 5
)

// task is one thing to measure, or two that come together.
type task struct {
	names   []string
	workers int
	run     func() ([]sample, error) // one for each name
}

// single is a task that measures one thing.
func single(name string, workers int, run func() (sample, error)) task {
	return task{[]string{name}, workers, func() ([]sample, error) {
		s, err := run()
		return []sample{s}, err
	}}
}

// side is one of those that are measured in turns.
type side struct {
	gate    string
	level   int // mappings that should be there
	present int // that are
	tasks   []task
}

// inTurns measures each task of all sides before the next. The sides have the
// same tasks.
func inTurns(tell func(Row), sides ...side) error {
	times := timesAlone
	if len(sides) > 1 {
		times = timesInTurns
	}
	for i, first := range sides[0].tasks {
		all := make([][][]sample, len(sides)) // by side and name
		for s := range all {
			all[s] = make([][]sample, len(first.names))
		}
		for range times {
			for s := range sides {
				got, err := sides[s].tasks[i].run()
				if err != nil {
					return fmt.Errorf("%s with %d mappings: %s: %w", sides[s].gate, sides[s].present, first.names[0], err)
				}
				for n := range got {
					all[s][n] = append(all[s][n], got[n])
				}
			}
		}
		for s, d := range sides {
			for n, name := range first.names {
				tell(row(d, name, first.workers, middle(all[s][n])))
			}
		}
	}
	return nil
}

// row is a sample as it is printed.
func row(d side, measure string, workers int, s sample) Row {
	r := Row{Gate: d.gate, Measure: measure, Level: d.level, Present: d.present, Workers: workers,
		Count: s.Count, Seconds: s.Elapsed.Seconds(), PerSecond: s.rate()}
	if s.Count > 0 {
		r.CPU = float64(s.CPU.Microseconds()) / float64(s.Count)
	}
	return r
}

func middle(all []sample) sample {
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.rate(), b.rate()) })
	return all[len(all)/2]
}

// errEnough ends a worker's part of a measurement.
var errEnough = errors.New("enough")

// measure runs op on each of the threads, with the worker's number and that of
// the turn, until the time is up or op says errEnough. Each has one turn at least,
// however late a busy machine lets it begin.
func (g *gate) measure(ctx context.Context, on []*netns.Thread, slice time.Duration, op func(worker, turn int) error) (sample, error) {
	counts, errs := make([]int, len(on)), make([]error, len(on))
	before, err := g.cpu()
	if err != nil {
		return sample{}, err
	}
	start := time.Now()
	var wait sync.WaitGroup
	for w, t := range on {
		done := t.Go(func() error {
			for turn := 0; (turn == 0 || time.Since(start) < slice) && ctx.Err() == nil; turn++ {
				if err := op(w, turn); err != nil {
					return err
				}
				counts[w]++
			}
			return nil
		})
		wait.Go(func() {
			if err := <-done; !errors.Is(err, errEnough) {
				errs[w] = err
			}
		})
	}
	wait.Wait()
	s := sample{Elapsed: time.Since(start)}
	after, err := g.cpu()
	s.CPU = after - before
	for _, n := range counts {
		s.Count += n
	}
	return s, errors.Join(append(errs, err, ctx.Err())...)
}

// together has workers of this process take the turns 0 to turns-1, until they
// are done or the time is up; one at least.
func together(ctx context.Context, workers, turns int, slice time.Duration, op func(turn int) error) (sample, error) {
	var next, done atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, workers)
	start := time.Now()
	for w := range workers {
		wait.Go(func() {
			for begun := false; (!begun || time.Since(start) < slice) && ctx.Err() == nil; begun = true {
				i := int(next.Add(1)) - 1
				if i >= turns {
					return
				}
				if errs[w] = op(i); errs[w] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	wait.Wait()
	s := sample{Count: int(done.Load()), Elapsed: time.Since(start)}
	return s, errors.Join(append(errs, ctx.Err())...)
}
