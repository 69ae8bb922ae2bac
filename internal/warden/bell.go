package warden

import (
	"time"

	"golang.org/x/time/rate"

	"portcullis/portmap"
)

// What waits for the owner is told to the hook once, and so much of it in a minute: a device
// that asks for every port must not ring at his door all night, nor drown what another asks; nor
// must one that makes up devices, or a LAN of guests. As many at once as a device has on the
// list (internal/approvals).
const (
	toldPerMinute, toldAtOnce     = 6, 8
	toldOfLANPerMinute, toldOfLAN = 60, 120
	maxBells                      = 64
	toldAgain                     = time.Minute / toldPerMinute
	quiet                         = toldAtOnce * toldAgain // then a device has all of it again
)

// bells is how much the owner is told for each device.
type bells struct {
	lans map[string]*lanBells // by interface
	of   map[portmap.Device]*bell
}

// lanBells are for all devices of a LAN, and for those that may be made up, or that there is no
// room for.
type lanBells struct{ all, rest *rate.Limiter }

type bell struct {
	*rate.Limiter
	last time.Time
}

func newBells() *bells {
	return &bells{lans: map[string]*lanBells{}, of: map[portmap.Device]*bell{}}
}

func newBell() *rate.Limiter { return rate.NewLimiter(rate.Every(toldAgain), toldAtOnce) }

// ring reports whether the owner is told of something of the client's now.
func (b *bells) ring(c *portmap.Client, now time.Time) bool {
	lan := b.lans[c.Interface]
	if lan == nil {
		lan = &lanBells{all: rate.NewLimiter(rate.Limit(toldOfLANPerMinute)/60, toldOfLAN), rest: newBell()}
		b.lans[c.Interface] = lan
	}
	d := c.ID().Device()
	own := b.of[d]
	if own == nil && len(b.of) >= maxBells {
		for device, other := range b.of {
			if now.Sub(other.last) >= quiet { // it would be as new
				delete(b.of, device)
			}
		}
	}
	if own == nil && (c.Unheard || len(b.of) >= maxBells) {
		return lan.rest.AllowN(now, 1) && lan.all.AllowN(now, 1)
	}
	if own == nil {
		own = &bell{Limiter: newBell()}
		b.of[d] = own
	}
	own.last = now
	return own.AllowN(now, 1) && lan.all.AllowN(now, 1)
}
