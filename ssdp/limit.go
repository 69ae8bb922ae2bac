package ssdp

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// How many answers go out (abuse-cases section 3.7). The bursts are what one
// second yields, so that one whole ssdp:all passes at once.
const (
	hostRate  = 20  // answers a second to one host
	totalRate = 100 // answers a second to all
	maxHosts  = 256 // hosts remembered
)

// limits decides whether answers may go out (abuse case E1).
type limits struct {
	total *rate.Limiter
	hosts map[netip.Addr]*rate.Limiter
	burst int // of one host
}

// newLimits lets one host have up to rows answers at once.
func newLimits(rows int) *limits {
	return &limits{
		total: rate.NewLimiter(totalRate, totalRate),
		hosts: map[netip.Addr]*rate.Limiter{},
		burst: max(hostRate, rows),
	}
}

// allow takes n answers to a host out of its own and the common allowance, or
// nothing out of either. A host over its own limit costs the others nothing;
// and because a host is remembered only once it was answered, the common limit
// bounds how fast forged addresses can fill the table.
func (l *limits) allow(now time.Time, host netip.Addr, n int) bool {
	own := l.hosts[host]
	if l.total.TokensAt(now) < float64(n) || own == nil && !l.room(now) {
		return false
	}
	if own == nil {
		own = rate.NewLimiter(hostRate, l.burst)
		l.hosts[host] = own
	}
	return own.AllowN(now, n) && l.total.AllowN(now, n)
}

// room makes place for one more host. Who has its full allowance again is no
// different from a stranger and is forgotten.
func (l *limits) room(now time.Time) bool {
	if len(l.hosts) < maxHosts {
		return true
	}
	for host, own := range l.hosts {
		if own.TokensAt(now) >= float64(l.burst) {
			delete(l.hosts, host)
		}
	}
	return len(l.hosts) < maxHosts
}
