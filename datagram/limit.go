package datagram

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Limits decides whether hosts may be served. It is not safe for concurrent use.
type Limits struct {
	rate  float64
	burst int
	most  int
	total *rate.Limiter
	hosts map[netip.Addr]*rate.Limiter
}

// NewLimits lets one host have perSecond on average and burst at once, all hosts
// together total (as many at once), and remembers up to hosts of them.
func NewLimits(perSecond float64, burst int, total float64, hosts int) *Limits {
	return &Limits{
		rate: perSecond, burst: burst, most: hosts,
		total: rate.NewLimiter(rate.Limit(total), int(total)),
		hosts: map[netip.Addr]*rate.Limiter{},
	}
}

// Allow takes n out of a host's own and the common allowance, or nothing out of
// either. A host over its own limit costs the others nothing; and because a host
// is remembered only once it was served, the common limit bounds how fast forged
// addresses can fill the table.
func (l *Limits) Allow(now time.Time, host netip.Addr, n int) bool {
	own := l.hosts[host]
	if l.total.TokensAt(now) < float64(n) || own == nil && !l.room(now) {
		return false
	}
	if own == nil {
		own = rate.NewLimiter(rate.Limit(l.rate), l.burst)
		l.hosts[host] = own
	}
	return own.AllowN(now, n) && l.total.AllowN(now, n)
}

// Hosts gives the number of hosts remembered.
func (l *Limits) Hosts() int { return len(l.hosts) }

// room makes place for one more host. Who has its full allowance again is no
// different from a stranger and is forgotten.
func (l *Limits) room(now time.Time) bool {
	if len(l.hosts) < l.most {
		return true
	}
	for host, own := range l.hosts {
		if own.TokensAt(now) >= float64(l.burst) {
			delete(l.hosts, host)
		}
	}
	return len(l.hosts) < l.most
}
