package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"portcullis/internal/inotify"
	"portcullis/internal/journal"
	"portcullis/internal/netif"
	"portcullis/internal/pace"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// How often a Keeper looks for something.
const (
	overdueEvery = 5 * time.Second  // what may run out, while there is any
	stateEvery   = 10 * time.Second // what is to be in the state directory, where the kernel does not tell
	stateLater   = time.Second      // after the kernel has told: who removes a directory begins with its files
)

// Engine is what takes mappings over; portmap.Engine is one.
type Engine interface {
	Restore(ctx context.Context, kept []portmap.Mapping) ([]portmap.Dropped, error)
	Readmit(ctx context.Context, waiting []portmap.Mapping) ([]portmap.Dropped, error)
	Snapshot() *portmap.Table
}

// Config is what a Keeper needs; every field but Journal and Dir must be set.
type Config struct {
	Log      *slog.Logger
	Journal  Journal          // nil: there is none
	Dir      string           // where it is, "": nobody tells of what becomes of it
	Last     journal.Restored // what it knew
	Identity *Identity
	Engine   Engine
	Revoke   func(ctx context.Context, m portmap.Mapping, reason portmap.Reason, why string)
	Name     func(*portmap.Client) string // what a host is called now, "": nobody knows
	LANs     func() map[string]netif.LAN  // as they are now, by interface
	Look     func()                       // has it looked soon which hosts are there
}

// Keeper takes over the mappings of the last run: at once those that today's policy
// allows, later those whose LAN or prefix is not there yet.
type Keeper struct {
	cfg Config

	mu      sync.Mutex
	waiting []portmap.Mapping // guarded by mu; whose LAN or prefix is not there yet
}

// New returns a Keeper. Restore must be called, then Run.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg} }

// Restore takes over what the last run held, as far as today's policy allows. The epochs
// are those that go on: zero unless nothing is missing (RFC 6887 section 8.5). With an
// error the gateway cannot work.
func (k *Keeper) Restore(ctx context.Context) (journal.Epochs, error) {
	last := k.cfg.Last
	k.cfg.Last = journal.Restored{} // it may be large, and is of no use any more
	for i := range last.Mappings {
		// Rules by name are asked about the name of today, where one is known.
		c := &last.Mappings[i].Client
		c.Name = cmp.Or(k.cfg.Name(c), c.Name)
	}
	dropped, err := k.cfg.Engine.Restore(ctx, last.Mappings)
	if err != nil {
		return journal.Epochs{}, fmt.Errorf("restore the mappings of the last run: %w", err)
	}
	lost := 0
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range dropped {
		if d.Waits() {
			k.waiting = append(k.waiting, d.Mapping)
			continue
		}
		lost++
		k.lost(&d.Mapping, d.Err)
	}
	if n := len(last.Mappings); n > 0 {
		k.cfg.Log.Info("restored mappings",
			"mappings", n-len(dropped), "dropped", lost, "waiting", len(k.waiting))
	}
	// Who waits can be reached as little as the mapping can, and misses nothing.
	if e := last.Epochs; last.Whole && lost == 0 && !e.V4.IsZero() && !e.V6.IsZero() {
		return e, nil
	}
	return journal.Epochs{}, nil
}

func (k *Keeper) lost(m *portmap.Mapping, err error) {
	k.cfg.Log.Info("mapping not restored", "mapping", m.String(),
		"mac", m.Client.MAC, "reason", portmap.ReasonOf(err).String(), "detail", err.Error())
}

// Readmit takes over what has waited for a LAN or a prefix that is there now, and
// forgets what has run out. It is safe for concurrent use.
func (k *Keeper) Readmit(ctx context.Context) { k.readmit(ctx, nil) }

// readmit is Readmit, where some mappings are over whatever their leases say.
func (k *Keeper) readmit(ctx context.Context, over []uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.waiting) == 0 {
		return
	}
	lans, now := k.cfg.LANs(), time.Now()
	var ready, rest []portmap.Mapping
	for i := range k.waiting {
		if slices.Contains(over, k.waiting[i].ID) {
			k.waiting[i].Expires = now // also when this comes to nothing: nobody says it twice
		}
		m := k.waiting[i]
		if there(lans, &m) || m.Left(now) == 0 {
			ready = append(ready, m)
		} else {
			rest = append(rest, m)
		}
	}
	if len(ready) == 0 {
		return
	}
	dropped, err := k.cfg.Engine.Readmit(ctx, ready)
	if err != nil {
		k.cfg.Log.Warn("cannot restore mappings yet", "err", err)
		return
	}
	for _, d := range dropped {
		if d.Waits() {
			rest = append(rest, d.Mapping)
		} else {
			k.lost(&d.Mapping, d.Err)
		}
	}
	if k.waiting = rest; len(dropped) < len(ready) {
		k.cfg.Log.Info("restored mappings after their LAN came up", "mappings", len(ready)-len(dropped), "waiting", len(rest))
		k.cfg.Look() // another device may have come with the LAN
	}
}

// Waiting returns the mappings whose LAN or prefix is not there yet. It is safe for
// concurrent use.
func (k *Keeper) Waiting() []portmap.Mapping {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.waiting)
}

// End ends a mapping that waits, for the owner and in the journal: no later run has it. One
// that does not wait, or not any more, is no error. It is safe for concurrent use.
func (k *Keeper) End(ctx context.Context, id uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.waiting, func(m portmap.Mapping) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	m := k.waiting[i]
	m.Expires = time.Now() // so it has run out, and is dropped
	if _, err := k.cfg.Engine.Readmit(ctx, []portmap.Mapping{m}); err != nil {
		return err
	}
	k.waiting = slices.Delete(k.waiting, i, i+1)
	return nil
}

// Run keeps the journal until ctx ends, and ends what turns out to have run out
// while the machine was off.
func (k *Keeper) Run(ctx context.Context) error {
	if k.cfg.Journal == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	ended := make(chan error, 1)
	go func() { ended <- k.cfg.Journal.Run(ctx) }()
	w, told := k.watcher()
	if w != nil {
		defer w.Close()
	}
	overdue, look := time.NewTimer(overdueEvery), time.NewTimer(k.watch(w))
	defer overdue.Stop()
	defer look.Stop()
	for soon := false; ; {
		select {
		case err := <-ended:
			return err
		case <-overdue.C:
			if k.endOverdue(ctx) {
				overdue.Reset(overdueEvery)
			}
		case <-told:
			if !soon {
				soon = true
				look.Reset(stateLater)
			}
		case <-look.C:
			soon = false
			_ = k.watch(w) // before the look, which sees what is done before
			k.cfg.Journal.Look()
			k.cfg.Identity.Keep()
			look.Reset(k.watch(w)) // what is there now is perhaps another one
		}
	}
}

// watcher returns one for the state directory, nil where there is none.
func (k *Keeper) watcher() (*inotify.Watcher, <-chan struct{}) {
	if k.cfg.Dir == "" {
		return nil, nil
	}
	w, err := inotify.New(journal.Files())
	if err != nil {
		k.cfg.Log.Debug("the state directory is looked at every ten seconds", "err", err)
		return nil, nil
	}
	return w, w.Told
}

// watch returns when the state directory is to be looked at though nobody has told.
func (k *Keeper) watch(w *inotify.Watcher) time.Duration {
	if w == nil {
		return pace.Until(stateEvery)
	}
	if there, err := w.WatchPlace(k.cfg.Dir); !there || err != nil {
		return pace.Until(stateEvery)
	}
	return pace.Until(pace.Minute) // not every file system tells, nor does a directory above
}

// endOverdue ends what has run out, and reports whether more may.
func (k *Keeper) endOverdue(ctx context.Context) (more bool) {
	over, more := k.cfg.Journal.Overdue()
	k.readmit(ctx, over)
	k.mu.Lock()
	more = more || len(k.waiting) > 0
	k.mu.Unlock()
	if len(over) == 0 {
		return more
	}
	for m := range k.cfg.Engine.Snapshot().All() {
		if slices.Contains(over, m.ID) {
			k.cfg.Revoke(ctx, m, portmap.Ended, "its lease ended while the machine was off")
		}
	}
	return more
}

// there reports whether the network of a mapping's host is there. The owner has not said
// on which LAN it is.
func there(lans map[string]netif.LAN, m *portmap.Mapping) bool {
	for name, l := range lans {
		if (m.Client.Owner() || name == m.Client.Interface) && l.OnLink(m.Internal.Addr()) {
			return true
		}
	}
	return false
}
