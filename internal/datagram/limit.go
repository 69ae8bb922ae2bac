package datagram

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Account is whom a datagram is charged to.
type Account struct {
	Device Device
	Class  Class
}

// Device is one machine, as far as it is known which one (abuse case K2): by the
// address of its frames, whatever source addresses it writes, or else by its
// source address. What is sent on one LAN says nothing of a machine of another, which may have
// the same address. It is comparable.
type Device struct {
	Interface string // of the LAN
	Sender    Sender
	Addr      netip.Addr // only where the sender is not known, or many hosts are behind it
}

// Class is what is known of who sent a datagram. Each class has a budget of its
// own, so that none can spend what is another's.
type Class uint8

// The classes.
const (
	// Host is a machine on the link whose address is its own.
	Host Class = iota
	// Routed is a machine behind a router, which only has its address.
	Routed
	// Stranger is whoever has not been seen at this address.
	Stranger
	classes
)

// Shares of the common budget that other classes than Host have beside it, and that
// is kept for hosts that have had nothing lately.
const (
	routedShare   = 2
	strangerShare = 5
	reserveShare  = 4
)

// Limits decides whether devices may be served. It is not safe for concurrent use.
type Limits struct {
	rate    float64
	burst   int
	budgets [classes]budget
	reserve *rate.Limiter
}

// budget is what the devices of one class have together.
type budget struct {
	total   *rate.Limiter
	most    int
	devices map[Device]*rate.Limiter
}

// NewLimits lets one device have perSecond on average and burst at once, and all
// hosts together total (as many at once). Others have a share of it in addition.
// Up to most devices are remembered.
func NewLimits(perSecond float64, burst int, total float64, most int) *Limits {
	l := &Limits{rate: perSecond, burst: burst, reserve: limiter(total/reserveShare, burst)}
	for class, share := range [classes]float64{Host: 1, Routed: routedShare, Stranger: strangerShare} {
		l.budgets[class] = budget{
			total: limiter(total/share, burst), most: max(1, most/int(share)), devices: map[Device]*rate.Limiter{},
		}
	}
	return l
}

// limiter allows perSecond, and as many at once, or least.
func limiter(perSecond float64, least int) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(int(perSecond), least))
}

// Allow takes n out of a device's own and its class's allowance, or nothing out of
// either. A device over its own limit costs the others nothing; and because a
// device is remembered only once it was served, the budget of its class bounds how
// fast forged addresses can fill the table. A host that has its full allowance is
// served from the reserve where the others have left nothing.
func (l *Limits) Allow(now time.Time, a Account, n int) bool {
	b := &l.budgets[a.Class]
	own := b.devices[a.Device]
	total := b.total
	if total.TokensAt(now) < float64(n) {
		if a.Class != Host || own != nil && !l.full(now, own) {
			return false
		}
		total = l.reserve
	}
	if total.TokensAt(now) < float64(n) || own == nil && !l.room(now, b) {
		return false
	}
	if own == nil {
		own = rate.NewLimiter(rate.Limit(l.rate), l.burst)
		b.devices[a.Device] = own
	}
	return own.AllowN(now, n) && total.AllowN(now, n)
}

// Devices returns the number of devices remembered.
func (l *Limits) Devices() (n int) {
	for _, b := range l.budgets {
		n += len(b.devices)
	}
	return n
}

func (l *Limits) full(now time.Time, own *rate.Limiter) bool {
	return own.TokensAt(now) >= float64(l.burst)
}

// room makes place for one more device. One that has its full allowance again is no
// different from another that was never served, and is forgotten.
func (l *Limits) room(now time.Time, b *budget) bool {
	if len(b.devices) < b.most {
		return true
	}
	for d, own := range b.devices {
		if l.full(now, own) {
			delete(b.devices, d)
		}
	}
	return len(b.devices) < b.most
}
