package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Row is one measurement as it is printed.
type Row struct {
	Gate      string  `json:"gate"`
	Measure   string  `json:"measure"`
	Level     int     `json:"level"`   // mappings that should be there
	Present   int     `json:"present"` // mappings that were there
	Workers   int     `json:"workers"` // how many asked at once
	Count     int     `json:"count"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	CPU       float64 `json:"cpu_us"`           // the daemon's, for each, in microseconds
	PSS       int     `json:"pss_kb,omitempty"` // the daemon's memory, when it has been filled up
}

// What is measured, by the name that is printed.
const (
	measureAdd      = "AddPortMapping, new"
	measureRenew    = "AddPortMapping, renewal"
	measureRemove   = "DeletePortMapping"
	measurePMPAdd   = "NAT-PMP, new"
	measurePMPEnd   = "NAT-PMP, deletion"
	measurePMPRenew = "NAT-PMP, renewal"
	measureSpecific = "GetSpecificPortMappingEntry, last"
	measureGeneric  = "GetGenericPortMappingEntry, last"
	measureFirst    = "WAN connections through the first"
	measureLast     = "WAN connections through the last"
	measureAny      = "AddAnyPortMapping, the last again"
	measureFill     = "filling up to there"
)

// plan is how much is measured.
type plan struct {
	levels []int         // mappings present, ascending
	slice  time.Duration // for one measurement; it is repeated
	fill   time.Duration // for all filling; what is there when it is over is the last level
	batch  int           // mappings that are added and then removed
	only   string        // what the names of the tasks have in them
}

// climb measures a gate at one level after the other. It stops where the time
// for filling is over.
func (g *gate) climb(ctx context.Context, p plan, levels []int, tell func(Row)) error {
	for _, level := range levels {
		if g.filled >= p.fill {
			return nil
		}
		if err := g.fillTo(ctx, p, level, tell); err != nil {
			return err
		}
		if err := inTurns(tell, g.side(ctx, p, level)); err != nil {
			return err
		}
		if err := g.check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fillTo adds mappings of the first host until there are as many as wanted, or
// the time for filling is over.
func (g *gate) fillTo(ctx context.Context, p plan, wanted int, tell func(Row)) error {
	s, err := g.measure(ctx, g.hosts[:1], p.fill-g.filled, func(_, turn int) error {
		if g.held+turn >= wanted {
			return errEnough
		}
		return g.soap[0].add(g.ports[g.held+turn])
	})
	if err != nil {
		return fmt.Errorf("%s: filling from %d: %w", g.name, g.held, err)
	}
	g.held += s.Count
	g.filled += s.Elapsed
	f, err := footprint(g.pid)
	if err != nil {
		return err
	}
	filled := row(side{gate: g.name, level: wanted, present: g.held}, measureFill, 1, s)
	filled.PSS = f.PSS
	tell(filled)
	return nil
}

// side returns everything that is measured with the mappings that are there.
func (g *gate) side(ctx context.Context, p plan, level int) side {
	d := side{gate: g.name, level: level, present: g.held}
	for _, workers := range []int{1, clients} {
		for _, l := range g.protocols() {
			d.tasks = append(d.tasks, task{[]string{l.added, l.removed}, workers, func() ([]sample, error) {
				return g.addAndRemove(ctx, p, workers, l)
			}})
		}
	}
	c, all, n := g.soap[0], g.ports, g.held
	ask := func(name string, request func(turn int) error) {
		d.tasks = append(d.tasks, single(name, 1, func() (sample, error) {
			return g.measure(ctx, g.hosts[:1], p.slice, func(_, turn int) error { return request(turn) })
		}))
	}
	// Seven is coprime to all levels, so every mapping has its turn.
	ask(measureRenew, func(turn int) error { return c.add(all[turn*7%n]) })
	ask(measurePMPRenew, func(turn int) error { return g.natpmp[0].add(all[turn*7%n]) })
	ask(measureSpecific, func(int) error { return c.specific(all[n-1]) })
	ask(measureGeneric, func(int) error { return c.generic(n - 1) })
	if g.anyRenews {
		ask(measureAny, func(int) error { return c.addAny(all[n-1]) })
	}
	through := func(name string, port uint16) {
		d.tasks = append(d.tasks, single(name, 1, func() (sample, error) { return g.connections(ctx, port, p.slice) }))
	}
	through(measureFirst, all[0])
	through(measureLast, all[n-1])
	d.tasks = slices.DeleteFunc(d.tasks, func(t task) bool { return !strings.Contains(strings.Join(t.names, " "), p.only) })
	return d
}

// protocol is how a host maps and unmaps a port, and what that is called.
type protocol struct {
	added, removed string
	add, remove    func(host int, port uint16) error
}

func (g *gate) protocols() []protocol {
	return []protocol{
		{
			measureAdd, measureRemove,
			func(w int, port uint16) error { return g.soap[w].add(port) },
			func(w int, port uint16) error { return g.soap[w].remove(port) },
		},
		{
			measurePMPAdd, measurePMPEnd,
			func(w int, port uint16) error { return g.natpmp[w].add(port) },
			func(w int, port uint16) error { return g.natpmp[w].remove(port) },
		},
	}
}

// addAndRemove adds batches on top of what is there and removes them again, until
// the time is up.
func (g *gate) addAndRemove(ctx context.Context, p plan, workers int, l protocol) ([]sample, error) {
	var added, removed sample
	for added.Elapsed < p.slice {
		a, r, err := g.batch(ctx, p.batch, p.slice-added.Elapsed, workers, l)
		if err != nil {
			return nil, err
		}
		added, removed = added.plus(a), removed.plus(r)
	}
	return []sample{added, removed}, nil
}

// batch adds mappings for as long as slice, and removes them.
func (g *gate) batch(ctx context.Context, size int, slice time.Duration, workers int, l protocol) (added, removed sample, err error) {
	var next atomic.Int64
	spare, mine := g.ports[g.held:], make([][]uint16, workers)
	added, err = g.measure(ctx, g.hosts[:workers], slice, func(w, _ int) error {
		i := int(next.Add(1)) - 1
		if i >= size {
			return errEnough
		}
		mine[w] = append(mine[w], spare[i])
		return l.add(w, spare[i])
	})
	if err != nil {
		return added, removed, fmt.Errorf("%s: %w", l.added, err)
	}
	removed, err = g.measure(ctx, g.hosts[:workers], time.Hour, func(w, turn int) error {
		if turn == len(mine[w]) {
			return errEnough
		}
		return l.remove(w, mine[w][turn])
	})
	if err != nil {
		return added, removed, fmt.Errorf("%s: %w", l.removed, err)
	}
	return added, removed, nil
}

// check finds out whether what was counted is there: the list ends after
// as many entries, the kernel holds as many, and a packet passes through the last.
func (g *gate) check(ctx context.Context) error {
	c, n := g.soap[0], g.held
	last := <-g.hosts[0].Go(func() error { return c.generic(n - 1) })
	beyond := <-g.hosts[0].Go(func() error { return c.generic(n) })
	var code refusedError
	if last != nil || !errors.As(beyond, &code) || code != 713 {
		return fmt.Errorf("%s: the list does not have %d entries: the last gives %v, the one beyond %v", g.name, n, last, beyond)
	}
	inKernel, err := g.kernel()
	if err != nil || inKernel != n {
		return fmt.Errorf("%s: the kernel holds %d mappings, want %d (%v)", g.name, inKernel, n, err)
	}
	if g.listed != nil {
		listed, err := g.listed(ctx)
		if err != nil || listed != n {
			return fmt.Errorf("%s: the owner's list has %d mappings, want %d (%v)", g.name, listed, n, err)
		}
	}
	return g.passes(ctx, g.ports[n-1])
}
