package reconcile

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"portcullis/firewall"
	"portcullis/internal/pace"
	"portcullis/internal/slog"
)

// How the kernel is kept as the table has it, whoever changes the ruleset.
const (
	settleTime = 100 * time.Millisecond // without another change: a reload is many transactions
	settleMost = 500 * time.Millisecond // after the first one
	auditEvery = pace.Minute            // of the rules, though nobody was seen
	rewatch    = time.Second            // after the watch has failed
	// repairs against a program that undoes them: so many at once, then one in
	// repairGap. Neither fills a log or a processor.
	repairBurst = 6 // three reloads of firewalld on iptables, of two changes each
	repairGap   = 10 * time.Second
	// lookAgain is how soon a look is taken again that came to nothing; it doubles up
	// to repairGap. The owner hears of it after toldAfter of those in a row: a firewall
	// that reloads is whole again after one or two.
	lookAgain = time.Second
	toldAfter = 3

	remindEvery = time.Minute // of an accept chain that is waited for
)

// Config is what a Keeper needs; every field must be set.
type Config struct {
	Log *slog.Logger
	// Watch calls the function whenever another program has changed rules, until ctx
	// ends; an error ends it sooner.
	Watch func(ctx context.Context, changed func(firewall.Intrusion)) error
	// Changed is called at once when another program has changed rules, Settled when none
	// has been changed for a moment since, and ours are repaired.
	Changed func()
	Settled func(context.Context)
	// Audits compare the kernel with what it should hold, all of it if full is set, put
	// right what differs, and return what did; "" is nothing. The first counts its repairs
	// itself.
	Audits []func(ctx context.Context, full bool) (drift string, err error)
	// Drifted is told what was put right.
	Drifted func(drift string)
}

// Keeper looks at the kernel's rules whenever another program has changed
// any, and puts ours right.
type Keeper struct {
	cfg     Config
	signal  chan struct{} // holds one: there is something in seen
	repairs *rate.Limiter
	losing  bool      // said that another program undoes our repairs
	failed  int       // looks in a row that came to nothing
	waited  time.Time // when it was last said that an accept chain is missing
	had     bool      // a look has found every accept chain there
	missing int       // looks in a row since that found one missing

	others atomic.Uint64 // repairs in which the first audit had no part

	mu   sync.Mutex
	seen firewall.Intrusion // guarded by mu; since the last audit
}

// New returns a Keeper. Run must be called.
func New(cfg Config) *Keeper {
	return &Keeper{cfg: cfg, signal: make(chan struct{}, 1), repairs: rate.NewLimiter(rate.Every(repairGap), repairBurst), waited: time.Now()}
}

// Run keeps the rules until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	watching.Go(func() { k.watch(ctx) })
	defer watching.Wait()
	tick := time.NewTimer(pace.Until(auditEvery))
	defer tick.Stop()
	for {
		settled := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-k.signal:
			k.settle(ctx)
			settled = true
		}
		if err := k.patience(ctx); err != nil {
			return err
		}
		if seen, whole := k.audit(ctx); !whole {
			time.AfterFunc(min(lookAgain<<min(max(k.failed, k.missing)-1, toldAfter+1), repairGap), func() { k.note(seen) })
		}
		if settled { // after the repair, for it may read a large ruleset
			k.cfg.Settled(ctx)
		}
		tick.Reset(pace.Until(auditEvery)) // the runtime forgets deadlines that were taken back when it gets another one
	}
}

// watch notes what others do.
func (k *Keeper) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.cfg.Watch(ctx, func(i firewall.Intrusion) {
			k.cfg.Changed()
			k.note(i)
		})
		if ctx.Err() != nil {
			return
		}
		k.cfg.Log.Warn("ruleset watch failed; retrying", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
}

func (k *Keeper) note(i firewall.Intrusion) {
	k.mu.Lock()
	if i.Program == "" {
		i.Program = k.seen.Program
	}
	i.Ours = i.Ours || k.seen.Ours
	k.seen = i
	k.mu.Unlock()
	select {
	case k.signal <- struct{}{}:
	default: // an audit is to come anyway
	}
}

// Suspect has everything looked at, because something does not work that our rules
// would do. It is safe for concurrent use.
func (k *Keeper) Suspect() { k.note(firewall.Intrusion{}) }

// settle waits until nobody changes anything.
func (k *Keeper) settle(ctx context.Context) {
	most := time.NewTimer(settleMost)
	defer most.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-most.C:
			return
		case <-time.After(settleTime):
			return
		case <-k.signal:
		}
	}
}

// patience waits until a repair is allowed again.
func (k *Keeper) patience(ctx context.Context) error {
	if k.repairs.Tokens() >= 1 {
		k.losing = false
		return nil
	}
	if !k.losing {
		k.losing = true
		k.cfg.Log.Error("another program keeps removing our rules; backing off",
			"program", k.program(), "every", repairGap)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(repairGap):
		return nil
	}
}

func (k *Keeper) program() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen.Program
}

// waits logs that an accept chain is not there; all else is in force. Of one that has not
// been there yet the backend has told the owner. One that has been there is perhaps being
// loaded again by its firewall, so it is looked for again soon before that is news.
func (k *Keeper) waits(err error) (again bool) {
	k.missing++
	switch {
	case k.had && k.missing < toldAfter:
		return true
	case k.had && k.missing == toldAfter, time.Since(k.waited) >= remindEvery-settleMost:
		k.waited = time.Now()
		k.cfg.Log.Warn("waiting for the accept chain; mapped traffic may be dropped", "err", err)
	}
	return false
}

// found notes that every accept chain is there.
func (k *Keeper) found() {
	if k.had && k.missing >= toldAfter {
		k.cfg.Log.Info("accept chain passes mapped traffic again")
	}
	k.had, k.missing = true, 0
}

// Others returns how many repairs were told of that the first of the audits has not counted. It
// is safe for concurrent use. Nil has repaired nothing.
func (k *Keeper) Others() uint64 {
	if k == nil {
		return 0
	}
	return k.others.Load()
}

// audit repairs what is wrong, with one log line and one event. It reports
// whether it could, and on what occasion.
func (k *Keeper) audit(ctx context.Context) (seen firewall.Intrusion, whole bool) {
	k.mu.Lock()
	seen = k.seen
	k.seen = firewall.Intrusion{}
	k.mu.Unlock()
	var all []string
	var err, lacking error
	counted := false
	for i, audit := range k.cfg.Audits {
		drift, failed := audit(ctx, seen.Ours)
		var chain *firewall.ChainError
		switch {
		case errors.As(failed, &chain) && ctx.Err() == nil:
			lacking = failed
			continue
		case drift != "":
			all, counted = append(all, drift), counted || i == 0
		}
		err = errors.Join(err, failed)
	}
	if seen.Ours { // many mappings have been read, in several times their memory
		debug.FreeOSMemory()
	}
	drift := strings.Join(all, "; ")
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.fails(drift, err)
		return seen, false
	case drift != "":
		k.repairs.Allow()
		if !counted {
			k.others.Add(1)
		}
		k.cfg.Log.Warn("repaired firewall rules", "drift", drift, "program", seen.Program)
		k.cfg.Drifted(drift)
	}
	if k.failed >= toldAfter && ctx.Err() == nil {
		k.cfg.Log.Info("firewall rules are intact again")
	}
	k.failed = 0
	switch {
	case ctx.Err() != nil:
	case lacking != nil:
		return seen, !k.waits(lacking)
	default:
		k.found()
	}
	return seen, true
}

// fails logs a check that came to nothing. What is not known to be wrong, because
// it changed while it was read, is no alarm, however long it goes on.
func (k *Keeper) fails(drift string, err error) {
	k.failed++
	switch {
	case k.failed != toldAfter:
		k.cfg.Log.Debug("checking firewall rules again", "drift", drift, "err", err)
	case errors.Is(err, firewall.ErrChanging):
		k.cfg.Log.Warn("firewall rules change too fast to check", "err", err)
	default:
		k.cfg.Log.Error("cannot repair firewall rules", "drift", drift, "err", err)
	}
}
