package flows

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// quick is a look at flows that somebody waits for, over sockets of its own: a pass
// may take long. What it may cost is bounded, because clients cause it: a burst, and
// a fiftieth of a core from then on. What is not looked at now is found by the pass that
// every change leads to.
type quick struct {
	mu     sync.Mutex // guards what follows; held while the kernel is asked
	kernel conntrack
	credit time.Duration
	last   time.Time
	free   []port    // that nobody's flow left from, when Held looked last
	at     time.Time // when that was

	survey  *survey   // nil: there is none
	granted time.Time // when one was last of use
	failed  time.Time // when one could last not be made, or kept
}

const (
	quickBurst = 500 * time.Millisecond // of looking
	share      = 50                     // and one part in so many of all time
	quickPorts = fewQueries             // whose flows are looked for at once
	quickFlows = 4096                   // that are read: a kernel without a filter tells all

	quickPatience = 500 * time.Millisecond // bounds each wait for the kernel
	quickFresh    = 100 * time.Millisecond // that a free port counts as one
)

// try looks, if it may, and says whether it has.
func (q *quick) try(look func(*conntrack) error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	start := time.Now()
	q.credit = min(q.credit+start.Sub(q.last)/share, quickBurst)
	q.last = start
	if q.credit <= 0 {
		return false
	}
	err := look(&q.kernel)
	q.credit -= time.Since(start)
	return err == nil
}

// found notes that a port is free; it is called by a look.
func (q *quick) found(p port) {
	if time.Since(q.at) > quickFresh || len(q.free) == quickPorts {
		q.free = q.free[:0]
	}
	q.free, q.at = append(q.free, p), time.Now()
}

// wasFree reports whether a port was found free just now, which is told once.
func (q *quick) wasFree(p port) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.free, p)
	if i < 0 {
		return false
	}
	q.free = slices.Delete(q.free, i, i+1)
	return time.Since(q.at) <= quickFresh
}

func (q *quick) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.endSurvey()
	q.kernel.close()
	q.kernel.closed = true
}

// errMany ends a look at more flows than there is time for.
var errMany = errors.New("too many flows")

// Free ends the flows of others that leave from external ports that a committed
// change has mapped, before it returns where that costs little and Held has not just
// found the port free, and else with the next pass. From then on the rules keep them
// from these ports. It must not be called under the backend's lock.
func (k *Keeper) Free(c *firewall.Delta) {
	j := newJob()
	for _, e := range c.New {
		if p := (port{e.Transport, e.External}); e.Kind == firewall.Hole && !k.quick.wasFree(p) {
			j.taken[p] = true
		}
	}
	if len(j.taken) == 0 {
		return
	}
	wan := k.wan()
	k.quick.try(func(kernel *conntrack) error {
		if s := k.quick.surveyed(wan, len(j.taken) > quickPorts); s != nil {
			maps.DeleteFunc(j.taken, func(p port, _ bool) bool { return !s.has(p) })
		}
		if len(j.taken) > quickPorts {
			return errMany
		}
		for _, q := range j.queries(unix.AF_INET) {
			seen := 0
			_, err := kernel.endAll(q, func(f Flow) (bool, error) {
				if seen++; seen > quickFlows {
					return false, errMany
				}
				return k.over(j, f), nil
			}, k.refuse)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (k *Keeper) wan() (addrs []netip.Addr) {
	k.look(func(t table) { addrs = t.facts.WANAddrs() })
	return addrs
}

// Held reports whether a flow leaves from an external port that is not of this host, as
// far as that can be told at once.
func (k *Keeper) Held(t portmap.Transport, external uint16, host netip.Addr) (held bool) {
	wan := k.wan()
	k.quick.try(func(kernel *conntrack) error {
		if s := k.quick.surveyed(wan, false); s != nil && !s.has(port{t, external}) {
			return nil
		}
		seen := 0
		err := kernel.walk(query{family: unix.AF_INET, transport: t, answersTo: external}, func(f found) error {
			held = f.Transport == t && f.AnswersTo.Port() == external && slices.Contains(wan, f.AnswersTo.Addr()) && f.Src.Addr() != host
			if seen++; held || seen > quickFlows {
				return errStop
			}
			return nil
		})
		if err == nil && seen == 0 {
			k.quick.found(port{t, external})
		}
		return err
	})
	return held
}
