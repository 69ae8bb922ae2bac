package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

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

// Every is how often Run looks: a name follows its file within about this time.
const Every = time.Second

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
}

// New makes a reader that knows nothing yet.
func New(cfg Config) *Reader {
	files, who := cfg.Files, anyOwner
	if len(files) == 0 {
		files, who = usualPlaces, systemOwn
	}
	r := &Reader{log: cfg.Log}
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
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			r.Look(time.Now())
		}
	}
}

// Name returns what the device with the MAC calls itself at the address, "" when no
// lease of both says so. It never waits, and costs the same whatever the files hold.
func (r *Reader) Name(mac portmap.MAC, addr netip.Addr, now time.Time) string {
	return r.names.Load().name(mac, addr, now)
}
