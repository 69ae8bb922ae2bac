package leasefile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"portcullis/internal/inotify"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// How often a Keeper does something.
const (
	every = time.Second      // at most: what changed is shown within this time
	list  = 3 * time.Second  // the same where there is a Show, for which all rules are read
	retry = 10 * time.Second // after a failure
	rest  = time.Minute      // where the kernel tells nothing, or the time of day may be set
	calm  = time.Second      // without which a file is perhaps being written
	tell  = time.Minute      // between lines of the log that say the same
)

// Config is what a Keeper needs; all but the files, System and Show must be set.
type Config struct {
	Log         *slog.Logger
	File, File6 string   // absolute paths of the lease files, of IPv4 and IPv6; "": none
	System      []string // directories in which whoever writes can become root: no file stands beside one
	Snapshot    func() *portmap.Table
	Watch       func(buffer int) *portmap.Watcher
	Waiting     func() []portmap.Mapping // of the last run, whose LAN is not there yet
	// Delete closes a mapping for the owner, also one that waits, in the journal too. One that
	// is not there is no error.
	Delete func(ctx context.Context, id uint64) error
	// Show shows the mappings of IPv4 by other means, in their order; nil: there is none. It is
	// called when the file is written, because a page takes a row's number for a line's.
	Show func(context.Context, []portmap.Mapping)
}

// Keeper keeps the lease files as the mappings are.
type Keeper struct {
	cfg   Config
	boot  string
	files []*kind
	kick  chan struct{} // holds one
	begun chan struct{} // closed after the first turn

	deleted []line // whose mappings are to be closed
	dirty   bool   // what is shown is not what there is
	failed  bool   // the owner was told that a file cannot be written
	said    time.Time
	ahead   time.Duration // of the time of day before the clock that nobody sets, when last written
	last    time.Time     // of the last turn
	shown   time.Time     // when Show was called last
}

// kind is a file, and the mappings in it.
type kind struct {
	path    string
	of      portmap.Kind
	written []version // the newest first
	is      stamp     // of the file as it was written, or as nothing more can be learnt from it
}

// New returns a Keeper that has read what the last run wrote, and what was deleted there
// since. Run must be called.
func New(cfg Config) *Keeper {
	k := &Keeper{cfg: cfg, boot: bootID(), kick: make(chan struct{}, 1), begun: make(chan struct{}), dirty: true}
	for _, f := range []kind{{path: cfg.File, of: portmap.NAT4}, {path: cfg.File6, of: portmap.Pinhole6}} {
		if f.path != "" && f.of == portmap.Pinhole6 && cfg.File != "" && oneFile(cfg.File, f.path) {
			cfg.Log.Error("lease files are one, or one stands beside the other; none of IPv6 is written", "file", f.path)
		} else if f.path != "" {
			k.files = append(k.files, &f)
			k.open(&f)
		}
	}
	return k
}

// open takes what the last run wrote for what was written. The directory is made, which is
// possible now and not in the sandbox.
func (k *Keeper) open(f *kind) {
	dir := filepath.Dir(f.path)
	err := Usable(dir, k.cfg.System)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		k.fails(f, err)
		return
	}
	f.written = kept(f.path, k.boot)
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
		if again := k.shown.Add(list).Sub(now); again > 0 && k.cfg.Show != nil {
			return again
		}
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
	is, err := stamp{}, private(filepath.Dir(f.path))
	if err == nil {
		is, err = stampOf(f.path)
	}
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
	there, read, err := read(f.path, maxFile)
	if err == nil && read != is { // it has changed in this moment, and is looked at again
		f.is = stamp{}
		return
	}
	gone, ok := goneFrom(f.written, there, is.changed)
	if err != nil || !ok {
		if time.Since(k.said) > tell {
			k.said = time.Now()
			k.cfg.Log.Warn("lease file was changed by another program; writing it anew", "file", f.path)
		}
		return
	}
	k.deleted = append(k.deleted, gone...)
}

// close has the mappings closed that were deleted. It reports whether all are. What is
// neither open nor waits for its LAN has ended, and does not come again.
func (k *Keeper) close(ctx context.Context) bool {
	if len(k.deleted) == 0 {
		return true
	}
	there := map[uint64]portmap.Mapping{}
	for _, m := range k.cfg.Waiting() { // first: what does not wait any more is open
		there[m.ID] = m
	}
	for m := range k.cfg.Snapshot().All() {
		there[m.ID] = m
	}
	var rest []line
	for _, l := range k.deleted {
		m, is := there[l.id]
		if !is || !strings.HasPrefix(l.text, place(&m)) {
			continue
		}
		if err := k.cfg.Delete(ctx, l.id); err != nil {
			if rest = append(rest, l); ctx.Err() == nil {
				k.cfg.Log.Error("cannot close a mapping that was deleted in the lease file", "mapping", m.String(), "err", err)
			}
			continue
		}
		k.cfg.Log.Info("mapping closed, because its line was deleted in the lease file", "mapping", m.String(), "mac", m.Client.MAC)
	}
	k.deleted = rest
	return len(rest) == 0
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
		k.shown = now
	}
	k.ahead = k.clocks(now)
	if k.dirty = again != 0; !k.dirty && k.failed {
		k.failed = false
		k.cfg.Log.Info("lease file is written again")
	}
	return again
}

// writeFile writes a file, and before that what the next run must know of it: otherwise a
// line that the daemon has left out itself could be taken for a deletion.
func (k *Keeper) writeFile(f *kind, list []line) error {
	if err := Usable(filepath.Dir(f.path), k.cfg.System); err != nil {
		return err
	}
	if len(f.written) == 0 {
		if err := replaceable(f.path, f.is); err != nil {
			return err
		}
	}
	var all []version
	is, err := replace(f.path, file(list), f.is, func(is stamp) error {
		all = append([]version{{list, is.changed}}, f.written[:min(len(f.written), versions-1)]...)
		return keep(f.path, k.boot, all)
	})
	if errors.Is(err, errTaken) { // nobody has seen it
		err = errors.Join(err, keep(f.path, k.boot, f.written))
	}
	if err != nil {
		return err
	}
	f.is, f.written = is, all
	return nil
}

func (k *Keeper) fails(f *kind, err error) {
	if !k.failed {
		k.failed = true
		k.cfg.Log.Error("cannot write the lease file", "file", f.path, "err", err)
	}
}
