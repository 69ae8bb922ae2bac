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
	v := f.View
	switch {
	case r.Kind == portmap.Pinhole6 && r.Internal.Addr().IsPrivate() && !p.uniqueLocal:
		return refuse(d, portmap.UniqueLocal, "%s is a unique local address, which nobody on the Internet can reach; "+
			"policy.unique_local = true opens ports for it all the same", r.Internal.Addr())
	case r.Kind == portmap.Pinhole6 && !v.WAN6Up:
		return refuse(d, portmap.NoAddress, "the gateway is not connected to the Internet by IPv6 at the moment")
	case r.Kind == portmap.Pinhole6:
		return d
	case !v.WANUp || !v.External.Is4() || v.External.IsUnspecified(): // I17
		return refuse(d, portmap.NoAddress, "the gateway has no Internet address at the moment")
	case v.Private: // K10
		return refuse(d, portmap.PrivateAddress, "the gateway's address %s cannot be reached from the Internet, "+
			`another router or the provider translates it; wan.private_address = "allow" maps ports all the same`, v.External)
	}
	return d
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
		return refuse(d, portmap.ClientQuota, "the device of %s has %d mappings, and %d is the most one may have (limits.mappings_per_client)",
			r.Client.Addr, f.ClientMappings, p.perClient)
	}
	if p.total > 0 && f.Mappings >= p.total {
		return refuse(d, portmap.TotalQuota, "the gateway holds %d mappings, and %d is the most it may hold (limits.mappings)",
			f.Mappings, p.total)
	}
	return p.meter(d, r, f)
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
		return refuse(d, portmap.GrantRate, "the device of %s opened or changed too many ports in a short time; try again in %s (limits.grants_per_second)",
			r.Client.Addr, roundUp(wait))
	}
	d.GrantReadyAt = ready.Add(p.interval)
	return d
}

// roundUp gives whole seconds, at least one, so that nobody comes back early.
func roundUp(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
