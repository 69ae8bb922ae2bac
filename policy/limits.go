package policy

import (
	"time"

	"portcullis/portmap"
)

// Burst is how many grants a device may take at once before
// limits.grants_per_second applies (abuse case K1).
const Burst = 16

// wan refuses what nobody could reach. A unique local address is routed between
// sites that agree on it and never on the Internet (RFC 4193 section 4.3), so that
// its owner must say that there is such a site; PCP would promise it as the address
// that peers use (RFC 6887 section 11.3).
func (p *Policy) wan(d portmap.Decision, r *portmap.Request, f *portmap.Facts) portmap.Decision {
	w := f.View.WAN()
	switch {
	case r.Kind == portmap.Pinhole6 && r.Internal.Addr().IsPrivate() && !p.uniqueLocal:
		return refuse(d, portmap.UniqueLocal, "%s is a unique local address, which nobody on the Internet can reach; "+
			"policy.unique_local = true opens ports for it anyway", r.Internal.Addr())
	case r.Kind == portmap.Pinhole6 && !f.View.WAN6Up:
		return refuse(d, portmap.NoAddress, "the gateway is not connected to the Internet by IPv6 at the moment")
	case r.Kind == portmap.Pinhole6:
		return d
	case !w.Up || !w.External.Is4() || w.External.IsUnspecified(): // I17
		return refuse(d, portmap.NoAddress, "the gateway has no Internet address at the moment")
	case w.Private: // K10
		return refuse(d, portmap.PrivateAddress, "the gateway's address %s cannot be reached from the Internet, "+
			`another router or the provider translates it; wan.private_address = "allow" maps ports anyway`, w.External)
	}
	return d
}

// byOwner is the verdict on what the owner opens by hand, behind the walls. Rules, tiers and
// quotas of devices say what programs may open without him; what he names himself is what a
// rule that names it would open. There is room for no more mappings than for anybody's.
func (p *Policy) byOwner(r *portmap.Request, f *portmap.Facts) portmap.Decision {
	d := p.wan(portmap.Decision{Action: portmap.Allow}, r, f)
	if d.Action == portmap.Allow && !f.Renewal && p.total > 0 && f.Mappings >= p.total {
		return p.full(d, f)
	}
	return d
}

func (p *Policy) full(d portmap.Decision, f *portmap.Facts) portmap.Decision {
	return refuse(d, portmap.TotalQuota, "the gateway has %d of %d mappings (limits.mappings)", f.Mappings, p.total)
}

// limits is the quotas, and with them the end: what passes is allowed. They
// count new mappings only; renewing one takes nothing more from anybody. Changing
// one costs what a new one costs, but for the room that it has already.
func (p *Policy) limits(d portmap.Decision, r *portmap.Request, f *portmap.Facts) portmap.Decision {
	switch {
	case f.Renewal && f.Change:
		return p.meter(d, r, f)
	case f.Renewal:
		d.GrantReadyAt = f.GrantReadyAt
		return d
	}
	if p.perClient > 0 && f.ClientMappings >= p.perClient {
		return refuse(d, portmap.ClientQuota, "%s has %d of %d mappings (limits.mappings_per_client)",
			r.Client.Addr, f.ClientMappings, p.perClient)
	}
	if most := p.ofLAN(f.View); most > 0 && f.LANMappings >= most {
		return refuse(d, portmap.TotalQuota, "the hosts on %s have %d of %d mappings (limits.mappings_per_lan)",
			r.Client.Interface, f.LANMappings, most)
	}
	if p.total > 0 {
		if d := p.room(d, r, f); d.Action != portmap.Allow {
			return d
		}
	}
	return p.meter(d, r, f)
}

// reserve is which part of limits.mappings is kept for devices that have few: one in
// so many. A device that makes up others (abuse case K1) fills the rest at most.
const (
	reserve = 4
	share   = 64 // of what is left, a device may have one mapping for every 1/share of the limit
)

// PerLAN returns how many mappings the hosts on one of so many LANs may have together; 0: no
// limit. Unless the owner says, it is all but what is reserved where there is another LAN,
// which then always finds room: a home does not come near that, and one full of made-up
// devices starves only itself.
func (c Config) PerLAN(lans int) int {
	if c.MappingsPerLAN == 0 && lans > 1 {
		return c.Mappings - c.Mappings/reserve
	}
	return c.MappingsPerLAN
}

// ofLAN returns PerLAN for the LANs of a view.
func (p *Policy) ofLAN(v *portmap.View) int {
	return Config{MappingsPerLAN: p.perLAN, Mappings: p.total}.PerLAN(len(v.LAN))
}

// room is the common quota. Near its end, who has never answered the gateway waits,
// and the less is left the fewer a device may have already; so that with a limit of
// 1024, where 70 devices want 32 each, a new one still gets a dozen.
func (p *Policy) room(d portmap.Decision, r *portmap.Request, f *portmap.Facts) portmap.Decision {
	left := p.total - f.Mappings
	switch {
	case left <= 0:
		return p.full(d, f)
	case p.total < share || left > p.total/reserve:
	case r.Client.Unheard:
		return refuse(d, portmap.TotalQuota, "the gateway has %d of %d mappings (limits.mappings), and %s has not answered it yet; try again in a moment",
			f.Mappings, p.total, r.Client.Addr)
	case f.ClientMappings*p.total >= left*share:
		return refuse(d, portmap.TotalQuota, "the gateway has %d of %d mappings (limits.mappings), and the rest is kept for devices with fewer than the %d of %s",
			f.Mappings, p.total, f.ClientMappings, r.Client.Addr)
	}
	return d
}

// meter is the generic cell rate algorithm: the state is the time at which the
// bucket would be full again, and each grant moves it on by one interval.
func (p *Policy) meter(d portmap.Decision, r *portmap.Request, f *portmap.Facts) portmap.Decision {
	if p.interval == 0 {
		return d
	}
	ready := f.GrantReadyAt
	if ready.Before(f.Now) {
		ready = f.Now
	}
	if last := f.Now.Add(Burst * p.interval); ready.After(last) { // only a clock that was set back gets here
		ready = last
	}
	wait := ready.Sub(f.Now) - (Burst-1)*p.interval
	if wait > 0 {
		return refuse(d, portmap.GrantRate, "%s opened or changed too many ports in a short time; try again in %s (limits.grants_per_second)",
			r.Client.Addr, roundUp(wait))
	}
	d.GrantReadyAt = ready.Add(p.interval)
	return d
}

// roundUp returns whole seconds, at least one, so that nobody comes back early.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
