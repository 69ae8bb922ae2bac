package special

import (
	"encoding/binary"
	"net/netip"
)

// ranges4 are the IPv4 ranges that nobody reaches from the Internet (IANA
// special-purpose registry, RFC 6890). The three documentation ranges are left
// out on purpose: they count as ordinary public addresses, so that labs and tests
// may use them.
var ranges4 = []struct {
	prefix netip.Prefix
	hosts  bool // hosts may live there, on some network that is not the Internet
}{
	{netip.MustParsePrefix("0.0.0.0/8"), false},
	{netip.MustParsePrefix("10.0.0.0/8"), true},
	{netip.MustParsePrefix("100.64.0.0/10"), true}, // carrier-grade NAT, RFC 6598
	{netip.MustParsePrefix("127.0.0.0/8"), false},
	{netip.MustParsePrefix("169.254.0.0/16"), false},
	{netip.MustParsePrefix("172.16.0.0/12"), true},
	{netip.MustParsePrefix("192.0.0.0/24"), false},   // DS-Lite and others, RFC 6333
	{netip.MustParsePrefix("192.88.99.0/24"), false}, // the former 6to4 relays, RFC 7526
	{netip.MustParsePrefix("192.168.0.0/16"), true},
	{netip.MustParsePrefix("198.18.0.0/15"), true}, // benchmarks, RFC 2544
	{netip.MustParsePrefix("224.0.0.0/3"), false},  // multicast, reserved, broadcast
}

// internet6 is what is handed out for global use (RFC 4291 section 2.4).
var internet6 = netip.MustParsePrefix("2000::/3")

// Public reports whether a host with this address can be reached from the
// Internet as far as the address tells. An IPv4-mapped address is judged as
// IPv4; the zero Addr is not public.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		return find4(a) < 0
	}
	return internet6.Contains(a.WithZone(""))
}

// Hosts reports whether hosts can have addresses such as this one, on the
// Internet or on another routed network.
func Hosts(a netip.Addr) bool {
	if a.Is4() {
		i := find4(a)
		return i < 0 || ranges4[i].hosts
	}
	return a.IsValid() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified()
}

// Edge reports whether a is kept from hosts by its place in a network: the first and
// the last address of an IPv4 one that is large enough (RFC 3021: one of two addresses
// is not), the first of an IPv6 one, which all routers of the link have (RFC 4291
// section 2.6.1; not in one of two addresses, RFC 6164).
func Edge(n netip.Prefix, a netip.Addr) bool {
	switch {
	case !n.Contains(a) || n.Bits() > a.BitLen()-2:
		return false
	case a.Is6():
		return a == n.Masked().Addr()
	}
	octets, hosts := a.As4(), ^uint32(0)>>n.Bits()
	host := binary.BigEndian.Uint32(octets[:]) & hosts
	return host == 0 || host == hosts
}

// find4 returns the place of the range that contains a, or -1.
func find4(a netip.Addr) int {
	for i := range ranges4 {
		if ranges4[i].prefix.Contains(a) {
			return i
		}
	}
	return -1
}
