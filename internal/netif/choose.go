package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"portcullis/internal/special"
)

// Choose returns which interfaces are LAN and WAN. It is pure.
//
// The error joins one *Problem for each fault of the configuration. The Roles
// are safe in any case: an interface at fault has no role, so a caller that
// finds an error at its start refuses to start, and one that finds it later
// applies the Roles and thereby stops serving there (abuse case A9: fail closed
// on a later address change). A WAN that is not there, or not up, is no error.
func Choose(s State, set Settings) (Roles, error) {
	c := chooser{state: s, set: set}
	c.wan()
	c.wan6()
	if len(set.LAN) > 0 {
		c.namedLAN()
	} else {
		c.detectLAN()
	}
	if set.NoIPv6 {
		c.withoutIPv6()
	}
	c.warnOverlap()
	if len(c.roles.LAN) == 0 && len(c.problems) == 0 {
		c.noLAN()
	}
	faults := make([]error, len(c.problems))
	for i, p := range c.problems {
		faults[i] = p
	}
	return c.roles, errors.Join(faults...)
}

// withoutIPv6 takes IPv6 out of the roles. It comes last: what leads outside by IPv6 alone is
// no LAN all the same.
func (c *chooser) withoutIPv6() {
	c.roles.WAN6 = Uplink{}
	var lans []LAN
	for _, l := range c.roles.LAN {
		if !l.Addr.IsValid() {
			c.why("%s is not served: it has no private IPv4 address, and IPv6 is switched off by lan.ipv6", l.Name)
			continue
		}
		l.Addrs = slices.DeleteFunc(slices.Clone(l.Addrs), netip.Addr.Is6)
		l.Prefixes, l.Direct = onlyIPv4(l.Prefixes), onlyIPv4(l.Direct)
		lans = append(lans, l)
	}
	c.roles.LAN = lans
}

func onlyIPv4(list []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// chooser collects the result. It lives for one call.
type chooser struct {
	state    State
	set      Settings
	roles    Roles
	problems []*Problem
	skipped  []string // interfaces that detection passed over, for noLAN
}

func (c *chooser) why(format string, args ...any) {
	c.roles.Why = append(c.roles.Why, fmt.Sprintf(format, args...))
}

func (c *chooser) warn(format string, args ...any) {
	c.roles.Warn = append(c.roles.Warn, fmt.Sprintf(format, args...))
}

func (c *chooser) problem(kind error, name, format string, args ...any) {
	c.problems = append(c.problems, &Problem{Kind: kind, Name: name, Detail: fmt.Sprintf(format, args...)})
}

// wan finds the IPv4 uplink and the address to report.
func (c *chooser) wan() {
	name, how := c.set.WAN, "the configuration names it"
	if name == "" {
		l, def, ok := c.best(c.state.Default4)
		if !ok {
			c.why("there is no WAN yet: no interface holds an IPv4 default route and wan.interface names none")
			return
		}
		name, how = l.Name, fmt.Sprintf("it holds the IPv4 default route with the lowest metric (%d)", def.Metric)
	}
	if slices.Contains(c.set.LAN, name) {
		c.sameAsLAN(name, "WAN", c.set.WAN != "")
		return
	}
	l, ok := c.state.Link(name)
	if !ok {
		c.roles.WAN = WAN{Uplink: Uplink{Name: name}}
		c.why("%s is the WAN: %s; it does not exist yet", name, how)
		return
	}
	if l.Loopback {
		c.problem(ErrUnusable, name, "%s is the loopback interface and cannot be the WAN: name the interface towards the Internet in wan.interface", name)
		return
	}
	if m, yes := c.state.port(l); yes {
		c.problem(ErrUnusable, name, "%s is a port of %s, and what comes in there is seen on %s: name %s in wan.interface instead", name, m.Name, m.Name, m.Name)
	}
	own := c.pickExternal(l)
	c.roles.WAN = WAN{
		Uplink: Uplink{Name: name, Index: l.Index, Up: l.Up && l.Running && own.IsValid(), Addrs: inUse(l)},
		Master: l.Master,
	}
	c.why("%s is the WAN: %s", name, how)
	c.external(own)
}

// best returns the interface of the most preferred default route.
func (c *chooser) best(routes []DefaultRoute) (Link, DefaultRoute, bool) {
	for _, r := range routes {
		if l, ok := c.state.LinkByIndex(r.Index); ok && !l.Loopback {
			return l, r, true
		}
	}
	return Link{}, DefaultRoute{}, false
}

// sameAsLAN reports a LAN that leads outside. It gets no role at all.
func (c *chooser) sameAsLAN(name, role string, named bool) {
	if c.faulty(name) {
		return
	}
	if named {
		c.problem(ErrLANIsWAN, name, "%s is named both as LAN and as %s, which would let hosts on the Internet open ports: name the interface towards the Internet in [wan] and the others in lan.interfaces", name, role)
		return
	}
	c.problem(ErrLANDefaultRoute, name, "%s is named as LAN but holds the default route, so it leads to the Internet, and hosts there could open ports: remove it from lan.interfaces, or name the real %s in [wan] and take the default route off %s", name, role, name)
}

// pickExternal returns the address of the WAN that the kernel uses for what
// leaves there, as far as that can be told: the default route's preferred
// source, else a public one before a private one before one for the link only,
// else the kernel's order.
func (c *chooser) pickExternal(l Link) netip.Addr {
	var best netip.Addr
	bestRank := 0
	for _, a := range l.Addrs {
		addr := a.Prefix.Addr()
		if !addr.Is4() || a.Deprecated {
			continue
		}
		rank := 1
		switch {
		case c.preferredSource(l.Index) == addr:
			rank = 4
		case special.Public(addr):
			rank = 3
		case !a.LinkScope:
			rank = 2
		}
		if rank > bestRank {
			best, bestRank = addr, rank
		}
	}
	return best
}

// preferredSource returns what the best default route on the link asks for.
func (c *chooser) preferredSource(index int) netip.Addr {
	for _, r := range c.state.Default4 {
		if r.Index == index {
			return r.Source
		}
	}
	return netip.Addr{}
}

// external fills in what is reported to clients. own is the WAN's own address.
func (c *chooser) external(own netip.Addr) {
	w := &c.roles.WAN
	if !own.IsValid() {
		c.why("%s has no IPv4 address, so there is no external address to report", w.Name)
		return
	}
	w.External = own
	if o := c.set.ExternalIP.Unmap(); o.IsValid() {
		if !o.Is4() || o.IsUnspecified() || o.IsLoopback() || o.IsMulticast() || o == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			c.problem(ErrExternalIP, o.String(), "wan.external_ip %s is not the IPv4 address of a host: set the address at which the Internet reaches this gateway, or leave it empty", o)
		} else {
			w.External = o
			c.why("the external address is %s, as configured; the one of %s is %s", o, w.Name, own)
		}
	}
	w.Private = !special.Public(w.External)
	w.Refused = w.Private && !c.set.AllowPrivate
	switch {
	case w.Refused:
		c.why("the external address %s cannot be reached from the Internet, so no mapping is granted: put the modem in bridge mode, or set wan.external_ip, or allow it with wan.private_address", w.External)
	case w.Private:
		c.why("the external address %s cannot be reached from the Internet; the configuration allows that", w.External)
	}
}

func (c *chooser) wan6() {
	name, how := c.set.WAN6, "the configuration names it"
	if name == "" {
		l, _, ok := c.best(c.state.Default6)
		if !ok {
			return
		}
		name, how = l.Name, "it holds the IPv6 default route with the lowest metric"
	}
	if slices.Contains(c.set.LAN, name) {
		c.sameAsLAN(name, "IPv6 WAN", c.set.WAN6 != "")
		return
	}
	c.roles.WAN6 = Uplink{Name: name}
	c.why("%s is the IPv6 WAN: %s", name, how)
	if l, ok := c.state.Link(name); ok && !l.Loopback {
		c.roles.WAN6.Index = l.Index
		c.roles.WAN6.Addrs = inUse(l)
		// Towards a provider a link-local address is enough, where the default
		// route is known (RFC 7084 section 4.1).
		routed := holdsDefault(c.state.Default6, l.Index)
		c.roles.WAN6.Up = l.Up && l.Running && slices.ContainsFunc(l.Addrs, func(a Addr) bool {
			return a.Prefix.Addr().Is6() && (routed || !a.LinkScope) && !a.Tentative && !a.Deprecated
		})
	}
}

// inUse returns the addresses that packets can be addressed to now.
func inUse(l Link) []netip.Addr {
	var all []netip.Addr
	for _, a := range l.Addrs {
		if !a.Tentative {
			all = append(all, a.Prefix.Addr())
		}
	}
	return all
}

// warnOverlap warns of a network that is on two interfaces, of which one is a LAN: a
// gateway behind another one with the same network, a second uplink or a tunnel.
func (c *chooser) warnOverlap() {
	for i, lan := range c.roles.LAN {
		isLAN := func(index int) bool {
			return slices.ContainsFunc(c.roles.LAN[:i], func(l LAN) bool { return l.Index == index })
		}
		for _, l := range c.state.Links {
			if l.Index == lan.Index || l.Master == lan.Index || !l.Up || isLAN(l.Index) {
				continue
			}
			if p, q, yes := overlap(lan.Prefixes, l.Addrs); yes {
				name := l.Name
				if name == c.roles.WAN.Name {
					name = "the WAN " + name
				}
				c.warn("%s (%s) and %s (%s) use overlapping networks: what is meant for a host of one may leave by the other; give one of them another network", lan.Name, p, name, q)
			}
		}
	}
}

// overlap finds a network of a LAN that shares addresses with one of another link. A
// link's own network everybody has, and an address by itself is no network.
func overlap(lan []netip.Prefix, addrs []Addr) (p, q netip.Prefix, yes bool) {
	for _, a := range addrs {
		q = a.Prefix.Masked()
		if a.Peer.IsValid() {
			q = a.Peer.Masked()
		}
		if a.Tentative || a.LinkScope || q.IsSingleIP() || q.Addr().IsLinkLocalUnicast() {
			continue
		}
		i := slices.IndexFunc(lan, func(p netip.Prefix) bool { return p.Overlaps(q) && !p.IsSingleIP() })
		if i >= 0 {
			return lan[i], q, true
		}
	}
	return p, q, false
}

func (c *chooser) noLAN() {
	switch {
	case len(c.set.LAN) > 0:
		c.problem(ErrNoLAN, "", "no LAN can be served: none of the configured interfaces (%s) is there, up, and has a private IPv4 address or one of IPv6; bring one up, or correct lan.interfaces", strings.Join(c.set.LAN, ", "))
	case len(c.skipped) > 0:
		c.problem(ErrNoLAN, "", "no LAN was found: %s has a suitable address, but detection skips such interfaces; name the one to serve in lan.interfaces", strings.Join(c.skipped, ", "))
	default:
		c.problem(ErrNoLAN, "", "no LAN was found: no interface is up with a private IPv4 address (10/8, 172.16/12, 192.168/16) and without a default route; give the LAN interface its address, or name it in lan.interfaces")
	}
}
