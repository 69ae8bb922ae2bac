package flows

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// RefuseTime is how long the host of an ended flow is answered with resets, or
// errors; it tries again within seconds.
const RefuseTime = time.Minute

const (
	maxRest  = time.Second     // so that flows end within two of their mapping
	failRest = 5 * time.Second // after a pass that failed
	patience = 5 * time.Second // bounds each wait for the kernel
	tries    = 3               // how often a pass that failed is made again
)

// Config configures a Keeper.
type Config struct {
	Log   *slog.Logger // must not be nil
	NetNS int          // file descriptor of a network namespace, open until Close; 0: the current one

	// Look lends the backend's committed mappings and facts to f, under the
	// backend's lock.
	Look func(f func(*firewall.State, firewall.Facts))
	// Refuse has the hosts of these flows (AnswersFrom) told for RefuseTime that
	// they are over, when they go on sending to the other end (Src).
	Refuse func([]Flow) error
}

// Keeper ends flows, in a goroutine of its own until Close. Its methods are safe
// for concurrent use; Changed and AddressesGone wait for nobody and may be called
// under the backend's lock.
type Keeper struct {
	log    *slog.Logger
	look   func(func(table))
	refuse func([]Flow) error
	wake   chan struct{} // capacity 1
	quit   chan struct{}
	done   chan struct{}

	mu      sync.Mutex // guards waiting
	waiting *job

	passing sync.Mutex // guards the socket; held while it is used
	kernel  conntrack
	failing bool // for logging a change only; the goroutine's own

	quick quick
}

// New starts a keeper.
func New(cfg Config) *Keeper {
	k := &Keeper{
		log: cfg.Log, refuse: cfg.Refuse, waiting: newJob(),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		kernel: conntrack{netns: cfg.NetNS, patience: patience},
		quick:  quick{kernel: conntrack{netns: cfg.NetNS, patience: quickPatience}},
		look: func(f func(table)) {
			cfg.Look(func(s *firewall.State, g firewall.Facts) { f(table{s, g}) })
		},
	}
	go k.run()
	return k
}

// Changed notes what a committed change means for flows.
func (k *Keeper) Changed(c *firewall.Delta) {
	j := newJob()
	j.change(c)
	k.add(j)
}

// AddressesGone notes the WAN addresses that new facts no longer have.
func (k *Keeper) AddressesGone(before, after firewall.Facts) {
	j := newJob()
	j.lose(before, after)
	k.add(j)
}

// Close stops the goroutine, then does what is waiting and ends the flows of these
// mappings, before it returns or until ctx ends. It is called once.
func (k *Keeper) Close(ctx context.Context, ms []portmap.Mapping) error {
	close(k.quit)
	<-k.done
	k.quick.close()
	j := k.take()
	j.endAll(ms)
	result := make(chan error, 1)
	go func() {
		_, err := k.pass(j)
		k.passing.Lock()
		defer k.passing.Unlock()
		k.kernel.close()
		k.kernel.closed = true
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) add(j *job) {
	if j.empty() {
		return
	}
	k.mu.Lock()
	k.waiting.join(j)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *Keeper) take() *job {
	k.mu.Lock()
	defer k.mu.Unlock()
	j := k.waiting
	k.waiting = newJob()
	return j
}

// giveBack puts a job that failed back among what is waiting, but not for ever: a
// kernel without conntrack's netlink interface will never do it.
func (k *Keeper) giveBack(j *job) {
	if j.tries++; j.tries < tries {
		k.add(j)
	}
}

// run does what is waiting. After each pass it rests fifty times as long as the pass
// took, so that many changes cost a fiftieth of one core (the kernel goes through all
// buckets of its table for an empty one too, 5 ms where there are 262,144); but no longer
// than maxRest, however large the table is, and however slow the programs of iptables.
func (k *Keeper) run() {
	defer close(k.done)
	for {
		select {
		case <-k.quit:
			return
		case <-k.wake:
		}
		start, pause := time.Now(), failRest
		j := k.take()
		ended, err := k.pass(j)
		if k.report(ended, err); err != nil {
			k.giveBack(j)
		} else {
			pause = min(share*time.Since(start), maxRest)
		}
		rest := time.NewTimer(pause)
		select {
		case <-k.quit:
			rest.Stop()
			return
		case <-rest.C:
		}
	}
}

func (k *Keeper) report(ended uint, err error) {
	switch {
	case err != nil && !k.failing:
		k.log.Warn("cannot end connections of removed mappings", "err", err)
	case ended > 0:
		k.log.Debug("flows of changed mappings ended", "flows", ended)
	}
	k.failing = err != nil
}

// pass ends the flows that the job is about.
func (k *Keeper) pass(j *job) (ended uint, err error) {
	if j.empty() {
		return 0, nil
	}
	k.passing.Lock()
	defer k.passing.Unlock()
	if err := k.kernel.open(); err != nil {
		return 0, err
	}
	var families []byte
	if j.four() {
		families = append(families, unix.AF_INET)
	}
	if j.six() {
		families = append(families, unix.AF_INET6)
	}
	for _, family := range families {
		for _, q := range j.queries(family) {
			n, err := k.kernel.endAll(q, func(f Flow) (bool, error) { return k.over(j, f), nil }, k.refuse)
			if ended += n; err != nil {
				return ended, err
			}
		}
	}
	return ended, nil
}
