package leasefile

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"portcullis/internal/inotify"
	"portcullis/portmap"
)

// How often a Keeper does something.
const (
	every = time.Second      // at most: what changed is shown within this time
	retry = 10 * time.Second // after a failure
	rest  = time.Minute      // where the kernel tells nothing, or the time of day may be set
	calm  = time.Second      // without which a file is perhaps being written
	tell  = time.Minute      // between lines of the log that say the same
)

// generations are the versions of a file that a deletion may have been made of.
const generations = 3

// Config is what a Keeper needs; all but the files and Show must be set.
type Config struct {
	Log         *slog.Logger
	File, File6 string // absolute paths of the lease files, of IPv4 and IPv6; "": none
	Snapshot    func() *portmap.Table
	Watch       func(buffer int) *portmap.Watcher
	// Delete closes a mapping for the owner. One that is not there is no error.
	Delete func(ctx context.Context, id uint64) error
	// Show shows the mappings of IPv4 by other means, in their order; nil: there is none.
	Show func(context.Context, []portmap.Mapping)
}

// Keeper keeps the lease files as the mappings are.
type Keeper struct {
	cfg   Config
	boot  string
	files []*kind
	kick  chan struct{} // holds one
	begun chan struct{} // closed after the first turn

	deleted []deletion // what is to be closed
	dirty   bool       // what is shown is not what there is
	failed  bool       // the owner was told that a file cannot be written
	said    time.Time
	ahead   time.Duration // of the time of day before the clock that nobody sets, when last written
	last    time.Time     // of the last turn
}

// deletion is a mapping that is to be closed. One that was deleted before the start may come
// later than that, when its LAN is there.
type deletion struct {
	line
	mayAwait bool
}

// kind is a file, and the mappings in it.
type kind struct {
	path    string
	of      portmap.Kind
	written [][]line // the newest first
	is      stamp    // of the file as it was written, or as nothing more can be learnt from it
}

// New returns a Keeper that has read what the last run wrote, and what was deleted there
// since. Run must be called.
func New(cfg Config) *Keeper {
	k := &Keeper{cfg: cfg, boot: bootID(), kick: make(chan struct{}, 1), begun: make(chan struct{}), dirty: true}
	for _, f := range []kind{{path: cfg.File, of: portmap.NAT4}, {path: cfg.File6, of: portmap.Pinhole6}} {
		if f.path != "" {
			k.files = append(k.files, &f)
			k.open(&f)
		}
	}
	for i := range k.deleted {
		k.deleted[i].mayAwait = true
	}
	return k
}

// open takes what the last run wrote for what was written. The directory is made, which is
// possible now and not in the sandbox.
func (k *Keeper) open(f *kind) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		k.fails(f, err)
	}
	if list := kept(f.path, k.boot); list != nil {
		f.written = [][]line{list}
	}
	is, err := stampOf(f.path)
	if err == nil {
		k.take(f, is)
	}
}

// Changed has the Keeper look at the mappings again, though none has changed.
func (k *Keeper) Changed() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Begun is closed when Run has closed, or tried to, what was deleted before it.
func (k *Keeper) Begun() <-chan struct{} { return k.begun }

// Run keeps the files until ctx ends. What changes afterwards is left for the next run: a
// page that deletes a line may restart the daemon at once.
func (k *Keeper) Run(ctx context.Context) error {
	events := k.cfg.Watch(256)
	defer events.Close()
	told, quiet := (<-chan struct{})(nil), func() bool { return len(k.files) == 0 }
	if w := k.watcher(); w != nil {
		defer w.Close()
		told, quiet = w.Told, func() bool { return k.watch(w) }
	}
	next := k.turn(ctx, time.Now(), quiet())
	close(k.begun)
	due := time.NewTimer(next)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, open := <-events.C:
			if !open { // the engine has ended
				<-ctx.Done()
				return ctx.Err()
			}
			if !shows(ev.Type) || k.dirty {
				continue
			}
			k.dirty = true
		case <-k.kick:
			k.dirty = true
		case <-told:
		case <-due.C:
			hears := quiet() // before the look, which sees what is done before
			due.Reset(k.turn(ctx, time.Now(), hears))
			continue
		}
		due.Reset(max(0, every-time.Since(k.last)))
	}
}

// shows reports whether an event can change what is shown.
func shows(t portmap.EventType) bool {
	switch t {
	case portmap.Denied, portmap.Pending, portmap.Drift, portmap.Approved, portmap.Refused, portmap.Withdrawn:
		return false
	}
	return true
}

// watcher returns one for the files, nil where there is none.
func (k *Keeper) watcher() *inotify.Watcher {
	names := map[string]bool{}
	for _, f := range k.files {
		names[filepath.Base(f.path)] = true
	}
	if len(names) == 0 {
		return nil
	}
	w, err := inotify.New(names)
	if err != nil {
		k.cfg.Log.Debug("lease files are looked at each minute", "err", err)
		return nil
	}
	return w
}

func (k *Keeper) watch(w *inotify.Watcher) bool {
	for _, f := range k.files {
		if w.Watch(f.path) != nil {
			return false
		}
	}
	return true
}

// turn looks at the files and writes them, and returns when to do so again.
func (k *Keeper) turn(ctx context.Context, now time.Time, quiet bool) time.Duration {
	k.last = now
	settled := true
	for _, f := range k.files {
		settled = k.look(f, now) && settled
	}
	if !settled {
		return every
	}
	if !k.close(ctx) {
		return retry
	}
	if ahead := k.clocks(now); (ahead - k.ahead).Abs() > every { // all ends are others
		k.dirty = true
	}
	if k.dirty {
		if again := k.write(ctx, now); again != 0 {
			return again
		}
	}
	if quiet && (len(k.files) == 0 || k.cfg.Snapshot().Len() == 0) {
		return time.Hour
	}
	return rest
}

// began is on the clock that nobody sets.
var began = time.Now()

// clocks returns how far the time of day is ahead of that clock.
func (k *Keeper) clocks(now time.Time) time.Duration {
	return now.Round(0).Sub(began.Round(0)) - now.Sub(began)
}

// look takes deletions from a file. It reports whether nobody is writing there.
func (k *Keeper) look(f *kind, now time.Time) (settled bool) {
	is, err := stampOf(f.path)
	switch {
	case err != nil:
		k.fails(f, err)
		return true
	case is == f.is:
		return true
	case is != (stamp{}) && is.trusted() && is.changed.After(now.Add(-calm)) && !is.changed.After(now):
		return false
	}
	k.take(f, is)
	return true
}

// take has closed what was taken out of a file, and the file be written again.
func (k *Keeper) take(f *kind, is stamp) {
	f.is, k.dirty = is, true
	if is == (stamp{}) || len(f.written) == 0 {
		return
	}
	there, err := "", error(nil)
	if is.trusted() {
		there, err = read(f.path)
	}
	var gone []line
	found := false
	for _, list := range f.written {
		if g, ok := missing(list, there); ok && (!found || len(g) < len(gone)) {
			gone, found = g, true
		}
	}
	if err != nil || !is.trusted() || !found {
		if time.Since(k.said) > tell {
			k.said = time.Now()
			k.cfg.Log.Warn("lease file was changed by another program; writing it anew", "file", f.path)
		}
		return
	}
	for _, l := range gone {
		k.deleted = append(k.deleted, deletion{line: l})
	}
}

// close has the mappings closed that were deleted. It reports whether all are.
func (k *Keeper) close(ctx context.Context) bool {
	if len(k.deleted) == 0 {
		return true
	}
	open := map[uint64]portmap.Mapping{}
	for m := range k.cfg.Snapshot().All() {
		open[m.ID] = m
	}
	var rest []deletion
	done := true
	for _, d := range k.deleted {
		m, there := open[d.id]
		if there = there && strings.HasPrefix(d.text, place(&m)); there {
			err := k.cfg.Delete(ctx, d.id)
			if err == nil {
				k.cfg.Log.Info("mapping closed, because its line was deleted in the lease file", "mapping", m.String(), "mac", m.Client.MAC)
				continue
			}
			if done = false; ctx.Err() == nil {
				k.cfg.Log.Error("cannot close a mapping that was deleted in the lease file", "mapping", m.String(), "err", err)
			}
		}
		if there || d.mayAwait {
			rest = append(rest, d)
		}
	}
	k.deleted = rest
	return done
}

// write shows the mappings as they are, and returns when to try again; 0: that is done.
func (k *Keeper) write(ctx context.Context, now time.Time) (again time.Duration) {
	table := k.cfg.Snapshot()
	for _, f := range k.files {
		switch err := k.writeFile(f, linesOf(Shown(table, f.of), now)); {
		case errors.Is(err, errTaken): // which the next look takes in
			again = max(again, every)
		case err != nil:
			again = retry
			k.fails(f, err)
		}
	}
	if k.cfg.Show != nil {
		k.cfg.Show(ctx, Shown(table, portmap.NAT4))
	}
	k.ahead = k.clocks(now)
	if k.dirty = again != 0; !k.dirty && k.failed {
		k.failed = false
		k.cfg.Log.Info("lease file is written again")
	}
	return again
}

// writeFile writes a file, and then what the next run must know of it.
func (k *Keeper) writeFile(f *kind, list []line) error {
	if len(f.written) == 0 {
		if err := replaceable(f.path, f.is); err != nil {
			return err
		}
	}
	is, err := replace(f.path, file(list), f.is)
	if err != nil {
		return err
	}
	f.is = is
	f.written = append([][]line{list}, f.written[:min(len(f.written), generations-1)]...)
	return keep(f.path, k.boot, list)
}

func (k *Keeper) fails(f *kind, err error) {
	if !k.failed {
		k.failed = true
		k.cfg.Log.Error("cannot write the lease file", "file", f.path, "err", err)
	}
}
