package netif

import (
	"net/netip"
	"slices"
	"sort"
	"strings"

	"portcullis/internal/special"
)

const (
	// The widest extra prefixes; anything wider is a way to say "everybody".
	minExtraBits4 = 8
	minExtraBits6 = 16
)

// namedLAN judges the interfaces that the owner named. They are held to less
// than detected ones, but never to less than abuse case A9.
func (c *chooser) namedLAN() {
	var names []string
	for _, name := range c.set.LAN {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	extra := c.extraPrefixes()
	for _, name := range names {
		l, ok := c.state.Link(name)
		switch {
		case c.faulty(name): // already reported by sameAsLAN
		case !ok:
			c.why("%s is not served: it does not exist yet", name)
		case c.misuse(l):
		case !l.Up:
			c.why("%s is not served: it is not up", name)
		default:
			c.serveNamed(l, extra)
		}
	}
	c.sortLAN()
}

// faulty reports whether a problem with this interface is known already.
func (c *chooser) faulty(name string) bool {
	return slices.ContainsFunc(c.problems, func(p *Problem) bool { return p.Name == name })
}

// misuse finds what makes an interface unfit to be a LAN in any state of its
// addresses.
func (c *chooser) misuse(l Link) bool {
	if l.Loopback {
		c.problem(ErrUnusable, l.Name, "%s is the loopback interface and cannot be a LAN: remove it from lan.interfaces", l.Name)
		return true
	}
	if m, yes := c.state.port(l); yes {
		c.problem(ErrUnusable, l.Name, "%s is a port of %s, and what comes in there is seen on %s: name %s in lan.interfaces instead", l.Name, m.Name, m.Name, m.Name)
		return true
	}
	for _, w := range []string{c.roles.WAN.Name, c.roles.WAN6.Name} {
		wan, ok := c.state.Link(w)
		if m, yes := c.state.port(wan); ok && yes && m.Index == l.Index {
			c.problem(ErrLANIsWAN, l.Name, "the WAN %s is a port of the LAN %s, so both are one network: take %s out of %s", w, l.Name, w, l.Name)
			return true
		}
	}
	if holdsDefault(c.state.Default4, l.Index) || holdsDefault(c.state.Default6, l.Index) {
		c.sameAsLAN(l.Name, "WAN", false)
		return true
	}
	return false
}

// serveNamed serves an interface in each family that it has addresses of.
func (c *chooser) serveNamed(l Link, extra []netip.Prefix) {
	private := ownIPv4(l, rfc1918)
	if len(private) == 0 {
		private = ownIPv4(l, alsoLAN)
	}
	public := slices.IndexFunc(l.Addrs, func(a Addr) bool { return a.Prefix.Addr().Is4() && special.Public(a.Prefix.Addr()) })
	switch {
	case len(private) > 0:
		c.serve(l, private[0], extra)
		c.why("%s is a LAN: the configuration names it; %s", l.Name, addrList(private))
		c.warnUplink(l)
	case public >= 0:
		c.problem(ErrLANPublic, l.Name, "%s is named as LAN but has the public address %s and no private one, so it looks like the WAN: check that LAN and WAN are not swapped, or give it a private address", l.Name, l.Addrs[public].Prefix.Addr())
	case slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Prefix.Addr().Is6() && !a.Tentative }):
		c.serve(l, netip.Addr{}, extra)
		c.why("%s is a LAN: the configuration names it; it has no IPv4 address yet and is served by IPv6 alone", l.Name)
		c.warnUplink(l)
	default:
		c.why("%s is not served: it has no address yet", l.Name)
	}
}

// warnUplink warns of a LAN by name that detection would have passed over, because
// it leads outside by a route that is not the main table's default route.
func (c *chooser) warnUplink(l Link) {
	if l.Uplink != (Way{}) {
		c.warn("%s is served because lan.interfaces names it, but %s leads to the Internet by it: anybody on that side can open ports; take it out of lan.interfaces unless all hosts there are yours", l.Name, l.Uplink)
	}
}

// detectLAN takes every interface that is up, has an RFC 1918 address and holds no
// default route, but for those that by their kind are no network of the owner's
// devices. Passing over is the safe side: the owner can name the interface, whereas
// nobody expects the daemon to listen there unasked.
func (c *chooser) detectLAN() {
	extra := c.extraPrefixes()
	for _, l := range c.state.Links {
		private := ownIPv4(l, rfc1918)
		if l.Loopback || !l.Up || len(private) == 0 || l.Name == c.roles.WAN.Name || l.Name == c.roles.WAN6.Name {
			continue
		}
		if reason := c.passOver(l); reason != "" {
			c.skipped = append(c.skipped, l.Name)
			c.why("%s is not served: %s; to serve it anyway, name it in lan.interfaces", l.Name, reason)
			continue
		}
		c.serve(l, private[0], extra)
		c.why("%s is a LAN: it is up, has a private address and holds no default route; %s", l.Name, addrList(private))
	}
	c.sortLAN()
}

// passOver returns why detection does not take an interface with a private
// address, or "".
func (c *chooser) passOver(l Link) string {
	wan, ok := c.state.Link(c.roles.WAN.Name)
	wanBridge, wanIsPort := c.state.port(wan)
	m, isPort := c.state.port(l)
	switch {
	case isPort:
		return "it is a port of " + m.Name
	case ok && wanIsPort && wanBridge.Index == l.Index:
		return "the WAN " + wan.Name + " is one of its ports"
	case holdsDefault(c.state.Default4, l.Index), holdsDefault(c.state.Default6, l.Index):
		return "it holds a default route"
	case l.Uplink != (Way{}):
		return l.Uplink.String() + " leads to the Internet by it"
	case slices.Contains(c.set.FormerUplinks, l.Name):
		return "it led to the Internet before, since this program was started"
	case engineNetwork(l):
		return "by its name it is a network of containers or virtual machines on this host"
	case l.PointToPoint || l.MAC == [6]byte{}:
		// A client is known by its address, MAC and interface.
		return "it is a tunnel, where clients have no MAC address to tell them apart"
	case dynamicOnly(l):
		return "its address was learned from another gateway, so it may lead to the Internet"
	}
	return ""
}

// dynamicOnly reports whether every IPv4 address of the link was learned.
func dynamicOnly(l Link) bool {
	return !slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Prefix.Addr().Is4() && !a.Dynamic })
}

// engineNames are how container engines and hypervisors name the networks they
// make on the host that they run on.
var engineNames = []string{
	"docker", "podman", "cni", "nerdctl", "virbr", "lxcbr", "lxdbr", "incusbr",
	"flannel", "kube-", "cali", "vz-",
}

// engineNetwork reports whether the interface is such a network. Who starts a
// container does not mean to let it open ports on the gateway: the engine has
// its own way to publish ports.
func engineNetwork(l Link) bool {
	for _, p := range engineNames {
		if strings.HasPrefix(l.Name, p) {
			return true
		}
	}
	if l.Kind == "veth" && strings.HasPrefix(l.Name, "ve-") { // systemd-nspawn
		return true
	}
	// Docker calls the bridge of a user's network "br-" and twelve hexadecimal
	// digits; "br-lan" and its like are not meant.
	id, ok := strings.CutPrefix(l.Name, "br-")
	return ok && len(id) == 12 && strings.Trim(id, "0123456789abcdef") == ""
}

// serve adds the interface to the roles.
func (c *chooser) serve(l Link, addr netip.Addr, extra []netip.Prefix) {
	master, _ := c.state.LinkByIndex(l.Master)
	lan := LAN{Name: l.Name, Index: l.Index, MAC: l.MAC, Addr: addr, Addrs: inUse(l), InVRF: master.Kind == "vrf"}
	add := func(p netip.Prefix) {
		if p = p.Masked(); p.IsValid() && !slices.Contains(lan.Prefixes, p) {
			lan.Prefixes = append(lan.Prefixes, p)
		}
	}
	for _, a := range l.Addrs {
		own := a.Prefix.Addr()
		switch {
		case a.Tentative:
		case own.Is4() && !within(own, rfc1918) && !within(own, alsoLAN):
			c.why("%s also has the address %s: hosts of that network are not served", l.Name, a.Prefix)
		case a.Peer.IsValid():
			add(a.Peer)
		default:
			add(a.Prefix)
		}
	}
	lan.Direct = slices.Clone(lan.Prefixes)
	for _, p := range extra {
		add(p)
	}
	c.roles.LAN = append(c.roles.LAN, lan)
}

func (c *chooser) sortLAN() {
	lans := c.roles.LAN
	sort.Slice(lans, func(i, j int) bool { return lans[i].Index < lans[j].Index })
}

// extraPrefixes returns those that narrow something down. One that covers the
// outside would undo the on-link rule (abuse case A6).
func (c *chooser) extraPrefixes() []netip.Prefix {
	var good []netip.Prefix
	for _, p := range c.set.ExtraPrefixes {
		least := minExtraBits4
		if p.Addr().Is6() {
			least = minExtraBits6
		}
		outside := slices.IndexFunc(c.roles.WAN.Addrs, p.Masked().Contains)
		switch {
		case !p.IsValid() || p.Addr().Is4In6() || p.Bits() < least:
			c.problem(ErrExtraPrefix, p.String(), "lan.extra_prefixes: %s is too wide to be a LAN: an IPv4 prefix has at least %d bits, an IPv6 prefix at least %d", p, minExtraBits4, minExtraBits6)
		case outside >= 0:
			c.problem(ErrExtraPrefix, p.String(), "lan.extra_prefixes: %s contains %s, the address of the WAN: name only networks behind the LAN", p, c.roles.WAN.Addrs[outside])
		default:
			good = append(good, p.Masked())
		}
	}
	return good
}

// ownIPv4 returns the link's IPv4 addresses inside the ranges, in the kernel's
// order.
func ownIPv4(l Link, ranges []netip.Prefix) []netip.Addr {
	var own []netip.Addr
	for _, a := range l.Addrs {
		if addr := a.Prefix.Addr(); addr.Is4() && !a.Deprecated && within(addr, ranges) {
			own = append(own, addr)
		}
	}
	return own
}

func addrList(addrs []netip.Addr) string {
	if len(addrs) == 1 {
		return "its address is " + addrs[0].String()
	}
	text := make([]string, len(addrs))
	for i, a := range addrs {
		text[i] = a.String()
	}
	return "its addresses are " + strings.Join(text, ", ")
}
