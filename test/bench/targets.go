package main

import (
	"fmt"
	"io"
	"strconv"
)

// A goal is what a line of the tables shall come to. One that is missed is no error: it
// wants a profile that shows why.
type goal struct {
	what   string
	want   float64
	atMost bool // else at least
	unit   string
	got    func(*report) (float64, bool) // false: it was not measured
}

// Where the goals are set.
const (
	goalHome    = 50     // mappings of a home
	goalFew     = 100    // of a crowded one
	goalMany    = 2_000  // where the incumbent is slow
	goalMost    = 2_300  // where it is as slow as it was measured
	goalMemory  = 20_000 // where memory is counted
	sameMemory  = 1.05   // two measurements of the same memory differ by less
	clientsMany = clients
)

// goals are all of them, in the order in which they are printed. The daemon closes each
// connection after its answer, as the incumbent does, so there are no rates on a kept one.
var goals = []goal{
	{"reads / miniupnpd's, at 100", 1, false, "", beside(measureSpecific, goalFew)},
	{"reads by index / miniupnpd's, at 100", 1, false, "", beside(measureGeneric, goalFew)},
	{"renewals / miniupnpd's, at 100", 1, false, "", beside(measureRenew, goalFew)},
	{"reads / miniupnpd's, at 2,000", 3, false, "", beside(measureSpecific, goalMany)},
	{"reads by index / miniupnpd's, at 2,000", 3, false, "", beside(measureGeneric, goalMany)},
	{"renewals / miniupnpd's, at 2,000", 3, false, "", beside(measureRenew, goalMany)},
	{"processor time of a new mapping", 300, true, "us", costs(measureAdd)},
	{"processor time of a renewal", 200, true, "us", costs(measureRenew)},
	{"processor time of a read", 100, true, "us", costs(measureSpecific)},
	{"new mappings / the kernel's elements", 0.15, false, "", beneath(measureAdd, 1)},
	{"the same by 8 clients at once", 0.3, false, "", beneath(measureAdd, clientsMany)},
	{"new mappings by NAT-PMP / the kernel's elements", 0.35, false, "", beneath(measurePMPAdd, 1)},
	{"new mappings / miniupnpd's, at 50", 4, false, "", beside(measureAdd, goalHome)},
	{"new mappings / miniupnpd's, at 2,300", 100, false, "", beside(measureAdd, goalMost)},
	{"memory a mapping, of 20,000", 1.5, true, "kB", each(whenMapped(goalMemory))},
	{"the same, started anew", 1.5, true, "kB", each(whenAnew(goalMemory))},
	{"memory started anew / before", sameMemory, true, "", anewToBefore},
	{"most memory at a start / in the steady state", 1.5, true, "", peaks(whenAnew(goalMemory))},
	{"at a repair", 1.5, true, "", peaks(whenRepaired)},
	{"at a list", 1.5, true, "", peaks(whenListed)},
	{"at a reload", 1.5, true, "", peaks(whenReloaded)},
	{"60,000 restored / given to the bare kernel", 3, true, "", longer(measureRestored)},
	{"60,000 repaired / given to the bare kernel", 3, true, "", longer(measureRepaired)},
	{"60,000 listed / given to the bare kernel", 1, true, "", longer(measureListed)},
	{"wake-ups a minute when idle, nftables", mostWakes, true, "", woken("nftables")},
	{"the same, iptables-nft", mostWakes, true, "", woken("iptables-nft")},
	{"the same, iptables-legacy", mostWakes, true, "", woken(legacyName)},
}

// beside is our rate as a multiple of the incumbent's, for one client.
func beside(measure string, level int) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		ours, _ := r.find(besideName, measure, level, 1)
		other, _ := r.find(incumbentName, measure, level, 1)
		if 20*other.Present < 19*level { // it did not come so far in its time
			return 0, false
		}
		return quotient(ours.PerSecond, other.PerSecond)
	}
}

// costs is the daemon's processor time for one, of all its processes, in microseconds.
func costs(measure string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		row, found := r.find(oursName, measure, goalFew, 1)
		return row.CPU, found
	}
}

// beneath is our rate as a part of the kernel's, which gets one element a transaction.
func beneath(measure string, workers int) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		ours, _ := r.find(oursName, measure, goalFew, workers)
		bare, _ := r.find(kernelName, measureBare, goalFew, 1)
		return quotient(ours.PerSecond, bare.PerSecond)
	}
}

// each is the memory of a mapping, in kB: what there is more than idle.
func each(when string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		idle, _ := r.then(whenIdle)
		f, _ := r.then(when)
		return quotient(float64(f.PSS-idle.PSS)*1.024, float64(f.Mappings))
	}
}

func anewToBefore(r *report) (float64, bool) {
	before, _ := r.then(whenMapped(goalMemory))
	anew, _ := r.then(whenAnew(goalMemory))
	return quotient(float64(anew.PSS), float64(before.PSS))
}

// peaks is the most memory as a multiple of what there is when nothing has been asked for
// since the start.
func peaks(when string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		f, _ := r.then(when)
		steady, _ := r.then(whenAnew(goalMemory))
		return quotient(float64(f.Peak), float64(steady.PSS))
	}
}

// longer is how many times as long something takes as the bare kernel does.
func longer(measure string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		level := r.plans.large.levels[0]
		ours, _ := r.find(largeName, measure, level, 1)
		bare, _ := r.find(largeName, measureGiven, level, 1)
		return quotient(ours.Seconds, bare.Seconds)
	}
}

// woken is how often a daemon is woken in a minute.
func woken(backend string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		for _, i := range r.idleness {
			if i.Backend == backend {
				return i.perMinute(), true
			}
		}
		return 0, false
	}
}

func quotient(a, b float64) (float64, bool) {
	if a == 0 || b == 0 {
		return 0, false
	}
	return a / b, true
}

// then returns the memory at some moment.
func (r *report) then(when string) (Footprint, bool) {
	for _, f := range r.footprint {
		if f.When == when {
			return f, true
		}
	}
	return Footprint{}, false
}

func (g goal) met(got float64) bool {
	if g.atMost {
		return got <= g.want
	}
	return got >= g.want
}

// target is a goal's number as it is printed.
func (g goal) target() string {
	bound := "at least "
	if g.atMost {
		bound = "at most "
	}
	return bound + g.number(g.want)
}

func (g goal) number(f float64) string {
	text := strconv.FormatFloat(f, 'f', 2, 64)
	if f >= 10 {
		text = number(f)
	}
	if g.unit != "" {
		text += " " + g.unit
	}
	return text
}

// goals shows each goal, what was measured, and whether that is enough.
func (r *report) goals(w io.Writer) {
	fmt.Fprint(w, "goal\ttarget\tgot\tmet\t\n")
	for _, g := range goals {
		got, verdict := "", "not measured"
		if f, measured := g.got(r); measured {
			got, verdict = g.number(f), "no"
			if g.met(f) {
				verdict = "yes"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", g.what, g.target(), got, verdict)
	}
	fmt.Fprintln(w)
}
