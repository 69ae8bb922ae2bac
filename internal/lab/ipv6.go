package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
)

// The IPv6 addresses of the network. A host's end as its IPv4 address does, read
// as text: 192.168.77.20 is 2001:db8:77::20. All are in the documentation range,
// which Portcullis treats as global.
var (
	LANPrefix6   = netip.MustParsePrefix("2001:db8:77::/64")
	GatewayLAN6  = netip.MustParseAddr("2001:db8:77::1")
	WANPrefix6   = netip.MustParsePrefix("2001:db8:5::/64")
	GatewayWAN6  = netip.MustParseAddr("2001:db8:5::5")
	InternetOne6 = netip.MustParseAddr("2001:db8:5::66")
	InternetTwo6 = netip.MustParseAddr("2001:db8:5::67") // a second address of the same host

	// GatewayLinkLocal is the gateway's on each interface but the WAN's, as on
	// many routers; on that one it has GatewayWANLinkLocal.
	GatewayLinkLocal    = netip.MustParseAddr("fe80::1")
	GatewayWANLinkLocal = linkLocal(wanMAC)

	linkLocalPrefix = netip.MustParsePrefix("fe80::/64")
	anywhere6       = netip.MustParsePrefix("::/0")
)

var errNoIPv6 = errors.New("lab: this network has no IPv6")

func kernelHasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6/conf/all")
	return err == nil
}

// prepare6 must come before a host has interfaces. Addresses are usable at once
// and are only those that we give: no duplicate address detection, no router
// advertisements, no link-local address of the kernel's own making.
func prepare6(h *Host, wanted bool) error {
	values := []struct{ name, value string }{
		{"disable_ipv6", "0"}, {"accept_dad", "0"}, {"dad_transmits", "0"},
		{"accept_ra", "0"}, {"autoconf", "0"}, {"addr_gen_mode", "1"},
	}
	if !wanted {
		values = values[:1]
		values[0].value = "1"
	}
	for _, of := range []string{"all", "default"} {
		for _, v := range values {
			err := h.SetSysctl("ipv6/conf/"+of+"/"+v.name, v.value)
			if err != nil && (wanted || !errors.Is(err, fs.ErrNotExist)) {
				return err
			}
		}
	}
	return nil
}

// build6 adds IPv6 to the gateway and the Internet, which IPv4 has connected.
func (n *Network) build6() error {
	g, i := n.Gateway, n.Internet
	g.LinkLocal, i.LinkLocal, i.Addr6 = GatewayLinkLocal, linkLocal(i.MAC), InternetOne6
	return errors.Join(
		g.SetSysctl("ipv6/conf/all/forwarding", "1"),
		address(g, Bridge, GatewayLinkLocal, linkLocalPrefix),
		address(g, WANInterface, GatewayWANLinkLocal, linkLocalPrefix),
		address(i, HostPort, i.LinkLocal, linkLocalPrefix),
		// The kernel prefers the address that it was given last.
		address(i, HostPort, InternetTwo6, WANPrefix6),
		address(i, HostPort, InternetOne6, WANPrefix6),
		n.AddWAN6(),
		n.AddLAN6(LANPrefix6),
	)
}

// join6 adds IPv6 to a LAN host, whose cable ends at a port of the bridge. The
// port itself is no place for addresses.
func (n *Network) join6(h *Host, port string) error {
	if !n.ipv6 {
		return nil
	}
	h.LinkLocal = linkLocal(h.MAC)
	err := errors.Join(
		n.Gateway.SetSysctl("ipv6/conf/"+port+"/disable_ipv6", "1"),
		address(h, h.ifname, h.LinkLocal, linkLocalPrefix),
		h.space.Route(h.ifname, anywhere6, GatewayLinkLocal),
	)
	for _, p := range n.lan6 {
		err = errors.Join(err, address(h, h.ifname, inPrefix(p, h.last()), p))
	}
	n.settle6()
	return err
}

// guest6 adds IPv6 to a host behind an interface of the gateway's own.
func (n *Network) guest6(ifname string, h *Host, number byte) error {
	if !n.ipv6 {
		return nil
	}
	a := netip.MustParsePrefix("2001:db8::/64").Addr().As16()
	copy(a[4:6], asText(number))
	p := netip.PrefixFrom(netip.AddrFrom16(a), 64)
	if p == WANPrefix6 || slices.Contains(n.lan6, p) {
		return fmt.Errorf("%s is in use", p)
	}
	h.LinkLocal, h.Addr6 = linkLocal(h.MAC), inPrefix(p, h.last())
	return errors.Join(
		address(n.Gateway, ifname, GatewayLinkLocal, linkLocalPrefix),
		address(n.Gateway, ifname, inPrefix(p, 1), p),
		address(h, h.ifname, h.LinkLocal, linkLocalPrefix),
		address(h, h.ifname, h.Addr6, p),
		h.space.Route(h.ifname, anywhere6, GatewayLinkLocal),
	)
}

// HasIPv6 reports whether the network has IPv6 at all.
func (n *Network) HasIPv6() bool { return n.ipv6 }

// AddWAN6 adds the gateway's IPv6 address and its default route on the WAN,
// which it has from the start: RemoveWAN6 first, then this is IPv6 that comes
// late. The link-local address is always there.
func (n *Network) AddWAN6() error {
	if !n.ipv6 {
		return errNoIPv6
	}
	return errors.Join(
		address(n.Gateway, WANInterface, GatewayWAN6, WANPrefix6),
		n.Gateway.space.Route(WANInterface, anywhere6, InternetOne6),
	)
}

// RemoveWAN6 takes both.
func (n *Network) RemoveWAN6() error {
	if !n.ipv6 {
		return errNoIPv6
	}
	return errors.Join(
		n.Gateway.space.RemoveRoute(WANInterface, anywhere6, InternetOne6),
		n.Gateway.space.RemoveAddresses(WANInterface, WANPrefix6),
	)
}

// AddLAN6 adds one more prefix to the LAN, of 64 bits: the gateway and each host
// have an address in it, and the Internet a way to it. Where it is no private
// one (RFC 4193), Host.Addr6 is from it from now on.
func (n *Network) AddLAN6(p netip.Prefix) error {
	switch {
	case !n.ipv6:
		return errNoIPv6
	case !p.Addr().Is6() || p.Bits() != 64 || p != p.Masked():
		return fmt.Errorf("lab: %s is no IPv6 prefix of 64 bits", p)
	case slices.Contains(n.lan6, p):
		return fmt.Errorf("lab: the LAN has %s", p)
	}
	n.lan6 = append(n.lan6, p)
	err := address(n.Gateway, Bridge, inPrefix(p, 1), p)
	for _, h := range n.lan {
		err = errors.Join(err, address(h, h.ifname, inPrefix(p, h.last()), p))
	}
	n.settle6()
	// The attacker knows the way to private ones, too (abuse case A2).
	return errors.Join(err, n.Internet.space.Route(HostPort, p, GatewayWAN6))
}

// RemoveLAN6 takes a prefix from the LAN, with every address in it that the
// gateway and the hosts have. Hosts keep their link-local address and the
// default route, which leads to the gateway's.
func (n *Network) RemoveLAN6(p netip.Prefix) error {
	i := slices.Index(n.lan6, p)
	if i < 0 {
		return fmt.Errorf("lab: the LAN does not have %s", p)
	}
	n.lan6 = slices.Delete(n.lan6, i, i+1)
	err := n.Gateway.space.RemoveAddresses(Bridge, p)
	for _, h := range n.lan {
		err = errors.Join(err, h.space.RemoveAddresses(h.ifname, p))
	}
	n.settle6()
	return errors.Join(err, n.Internet.space.RemoveRoute(HostPort, p, GatewayWAN6))
}

// RenumberLAN6 is what a provider does at night: the new prefix comes, and the
// old one goes.
func (n *Network) RenumberLAN6(from, to netip.Prefix) error {
	if err := n.AddLAN6(to); err != nil {
		return err
	}
	return n.RemoveLAN6(from)
}

// settle6 names each host's address in the newest prefix that is not private.
func (n *Network) settle6() {
	var newest netip.Prefix
	for _, p := range n.lan6 {
		if !p.Addr().IsPrivate() {
			newest = p
		}
	}
	name := func(h *Host, last byte) {
		h.Addr6 = netip.Addr{}
		if newest.IsValid() {
			h.Addr6 = inPrefix(newest, last)
		}
	}
	name(n.Gateway, 1)
	for _, h := range n.lan {
		name(h, h.last())
	}
}

// AddAddress adds one more address to a host's own interface, as a privacy
// address (RFC 8981) or an alias is. The prefix is as long as the LAN's. By IPv6
// the host then prefers it as a source, as it would a privacy address.
func (h *Host) AddAddress(a netip.Addr) error { return address(h, h.ifname, a, lanLength(a)) }

// RemoveAddress takes an address from the host's own interface.
func (h *Host) RemoveAddress(a netip.Addr) error {
	return h.space.RemoveAddresses(h.ifname, netip.PrefixFrom(a, a.BitLen()))
}

func lanLength(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, LANPrefix.Bits())
	}
	return netip.PrefixFrom(a, LANPrefix6.Bits())
}

// last is the last number of the host's IPv4 address.
func (h *Host) last() byte { return h.Addr.As4()[3] }

// inPrefix is the address in a prefix whose last group reads as the number.
func inPrefix(p netip.Prefix, number byte) netip.Addr {
	a := p.Addr().As16()
	copy(a[14:], asText(number))
	return netip.AddrFrom16(a)
}

// asText returns the two bytes that are read as the decimal digits of a number.
func asText(number byte) []byte { return []byte{number / 100, number/10%10<<4 | number%10} }

// linkLocal is the address that an interface makes of its MAC (RFC 4291
// appendix A).
func linkLocal(m net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}
