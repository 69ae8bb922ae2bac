package dhcp

import (
	"context"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"portcullis/internal/inotify"
	"portcullis/internal/pace"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// usualPlaces are where DHCP servers keep their leases, as OpenWrt, Debian and their
// kin configure them. Those that are not there cost a stat.
var usualPlaces = []string{
	"/tmp/dhcp.leases",                // dnsmasq of OpenWrt
	"/var/lib/misc/dnsmasq.leases",    // of Debian
	"/var/lib/dnsmasq/dnsmasq.leases", // of Fedora and Arch
	"/tmp/hosts/odhcpd",
	"/tmp/odhcpd.leases",
	"/var/lib/dhcp/dhcpd.leases",
	"/var/lib/kea/kea-leases4.csv",
	"/var/lib/kea/kea-leases6.csv",
}

// Every is how often Run looks at most: a name follows its file within about this time.
const Every = time.Second

// rest is how often Run looks though the kernel has told nothing: not every file system
// does, and a directory may be new.
const rest = pace.Minute

// Config is what a Reader needs.
type Config struct {
	// Files are absolute paths, of which the last element is no symbolic link, with or
	// without a Format and ":" before them. Empty: the usual places, where root or a
	// system user owns the file.
	Files []string
	Log   *slog.Logger
}

// Reader knows the names of hosts. Name may be called by many at once; Look and Run
// are for one caller.
type Reader struct {
	log     *slog.Logger
	sources []*source
	names   atomic.Pointer[names]
	watches func(names map[string]bool) (*inotify.Watcher, error) // nil: Run looks each time
	rests   func()                                                // nil, or called when Run waits for the kernel to tell something
}

// New makes a reader that knows nothing yet.
func New(cfg Config) *Reader {
	files, who := cfg.Files, anyOwner
	if len(files) == 0 {
		files, who = usualPlaces, systemOwn
	}
	r := &Reader{log: cfg.Log, watches: inotify.New}
	for _, file := range files {
		r.sources = append(r.sources, newSource(file, who))
	}
	r.names.Store(newNames(nil))
	return r
}

// Look reads the files that have changed.
func (r *Reader) Look(now time.Time) {
	changed := false
	for _, s := range r.sources {
		if s.look(now, r.log) {
			changed = true
		}
	}
	if changed {
		r.names.Store(newNames(r.sources))
	}
}

// Run looks until ctx ends.
func (r *Reader) Run(ctx context.Context) error {
	w := r.watcher()
	told := (<-chan struct{})(nil)
	if w != nil {
		defer w.Close()
		told = w.Told
	}
	var last time.Time
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-told:
			due.Reset(max(0, Every-time.Since(last)))
			continue
		case <-due.C:
		}
		quiet := w != nil && r.watch(w) // before the look, which sees what is done before
		last = time.Now()
		r.Look(last)
		if !quiet || !r.settled() {
			due.Reset(Every)
			continue
		}
		due.Reset(pace.Until(rest))
		if r.rests != nil {
			r.rests()
		}
	}
}

// watcher returns one, or nil where the kernel has none.
func (r *Reader) watcher() *inotify.Watcher {
	if r.watches == nil {
		return nil
	}
	names := make(map[string]bool)
	for _, s := range r.sources {
		for _, path := range s.parts {
			names[filepath.Base(path)] = true
		}
	}
	w, err := r.watches(names)
	if err != nil {
		r.log.Debug("lease files are looked at each second", "err", err)
		return nil
	}
	return w
}

// watch reports whether the kernel tells of each file.
func (r *Reader) watch(w *inotify.Watcher) bool {
	for _, s := range r.sources {
		for _, path := range s.parts {
			if err := w.Watch(path); err != nil {
				return false
			}
		}
	}
	return true
}

// settled reports whether nothing can have been done to the files that the look before
// did not show.
func (r *Reader) settled() bool {
	for _, s := range r.sources {
		if !s.settled {
			return false
		}
	}
	return true
}

// Name returns what the device with the MAC calls itself at the address, "" when no
// lease of both says so. It never waits, and costs the same whatever the files hold.
func (r *Reader) Name(mac portmap.MAC, addr netip.Addr, now time.Time) string {
	return r.names.Load().name(mac, addr, now)
}
