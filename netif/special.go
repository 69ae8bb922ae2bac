package netif

import "net/netip"

// notInternet4 are the IPv4 ranges whose addresses nobody reaches from the Internet
// (IANA special-purpose registry, RFC 6890). The three documentation ranges are left
// out on purpose: they count as ordinary public addresses, so that labs and tests may
// use them.
var notInternet4 = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT, RFC 6598
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), // DS-Lite and others, RFC 6333
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks, RFC 2544
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("240.0.0.0/4"),
}

// internet6 is what is handed out for global use (RFC 4291 section 2.4).
var internet6 = netip.MustParsePrefix("2000::/3")

var rfc1918 = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
}

// alsoLAN are ranges that no detection takes for a LAN, but that the owner may
// use on an interface that is named.
var alsoLAN = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("169.254.0.0/16"),
}

// Public says whether a host with this address can be reached from the Internet as far
// as the address tells. Documentation addresses count as public. An IPv4-mapped address
// is judged as IPv4; the zero Addr is not public.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	switch {
	case !a.IsValid():
		return false
	case a.Is4():
		return !within(a, notInternet4)
	}
	return internet6.Contains(a.WithZone(""))
}

func within(a netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
