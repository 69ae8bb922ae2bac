package warden

import (
	"time"

	"golang.org/x/time/rate"

	"portcullis/portmap"
)

// What waits for the owner is told to the hook once, and so much of it in a minute: a device
// that asks for every port must not ring at his door all night, nor drown what another asks. As
// many at once as a device has on the list (internal/approvals).
const (
	toldPerMinute, toldAtOnce     = 6, 8
	toldOfAllPerMinute, toldOfAll = 60, 120
	maxBells                      = 64
	toldAgain                     = time.Minute / toldPerMinute
	quiet                         = toldAtOnce * toldAgain // then a device has all of it again
)

// bells is how much the owner is told for each device.
type bells struct {
	all, rest *rate.Limiter // rest is for the devices that there is no room for
	of        map[portmap.Device]*bell
}

type bell struct {
	*rate.Limiter
	last time.Time
}

func newBells() *bells {
	return &bells{
		all: rate.NewLimiter(rate.Limit(toldOfAllPerMinute)/60, toldOfAll), rest: newBell(),
		of: map[portmap.Device]*bell{},
	}
}

func newBell() *rate.Limiter { return rate.NewLimiter(rate.Every(toldAgain), toldAtOnce) }

// ring reports whether the owner is told of something of the device's now.
func (b *bells) ring(d portmap.Device, now time.Time) bool {
	own := b.of[d]
	if own == nil && len(b.of) >= maxBells {
		for device, other := range b.of {
			if now.Sub(other.last) >= quiet { // it would be as new
				delete(b.of, device)
			}
		}
	}
	if own == nil && len(b.of) >= maxBells {
		return b.rest.AllowN(now, 1) && b.all.AllowN(now, 1)
	}
	if own == nil {
		own = &bell{Limiter: newBell()}
		b.of[d] = own
	}
	own.last = now
	return own.AllowN(now, 1) && b.all.AllowN(now, 1)
}
