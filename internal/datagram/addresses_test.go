package datagram_test

import (
	"net/netip"
	"testing"

	"portcullis/internal/datagram"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

var (
	four = datagram.Addresses{
		Locals:   []netip.Addr{addr("192.168.1.1")},
		Prefixes: prefixes("192.168.1.0/24", "10.9.9.8/31", "fe80::/64"),
	}
	six = datagram.Addresses{
		Locals:   []netip.Addr{addr("fe80::1"), addr("2001:db8::1")},
		Prefixes: prefixes("192.168.1.0/24", "fe80::/64", "2001:db8::/64", "fd00::/127"),
	}
	group4 = addr("239.255.255.250")
	group6 = addr("ff02::c")
)

// TestAddressesRefuse: who is answered, in both families.
func TestAddressesRefuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		addresses   datagram.Addresses
		group       netip.Addr
		source, to  string
		wantRefused string
	}{
		{"host", four, netip.Addr{}, "192.168.1.9:5000", "192.168.1.1", ""},
		{"group", four, group4, "192.168.1.9:5000", "239.255.255.250", ""},
		{"group nobody joined", four, netip.Addr{}, "192.168.1.9:5000", "239.255.255.250", "sent to another address"},
		{"A4/another address", four, group4, "192.168.1.9:5000", "203.0.113.5", "sent to another address"},
		{"A6/off link", four, group4, "192.168.2.9:5000", "192.168.1.1", "off link"},
		{"E5/loop port", four, group4, "192.168.1.9:19", "192.168.1.1", "loop port"},
		{"ourselves", four, group4, "192.168.1.1:5000", "192.168.1.1", "not a host's address"},
		{"network", four, group4, "192.168.1.0:5000", "192.168.1.1", "network, broadcast or anycast address"},
		{"broadcast", four, group4, "192.168.1.255:5000", "192.168.1.1", "network, broadcast or anycast address"},
		{"first of two", four, group4, "10.9.9.8:5000", "192.168.1.1", ""},
		{"A8/other family", four, group4, "[fe80::9]:5000", "192.168.1.1", "not a host's address"},
		{"no address", datagram.Addresses{}, group4, "192.168.1.9:5000", "239.255.255.250", "no address"},

		{"6/link-local", six, netip.Addr{}, "[fe80::9]:5000", "fe80::1", ""},
		{"6/global to link-local", six, netip.Addr{}, "[2001:db8::9]:5000", "fe80::1", ""},
		{"6/link-local to global", six, netip.Addr{}, "[fe80::9]:5000", "2001:db8::1", ""},
		{"6/group", six, group6, "[fe80::9]:5000", "ff02::c", ""},
		{"6/other group", six, group6, "[fe80::9]:5000", "ff05::c", "sent to another address"},
		{"6/A4/another address", six, group6, "[fe80::9]:5000", "2001:db8::2", "sent to another address"},
		{"6/A6/off link", six, group6, "[2001:db8:1::9]:5000", "fe80::1", "off link"},
		{"6/A8/mapped", six, group6, "[::ffff:192.168.1.9]:5000", "fe80::1", "not a host's address"},
		{"6/A8/other family", six, group6, "192.168.1.9:5000", "fe80::1", "not a host's address"},
		{"6/multicast", six, group6, "[ff02::1]:5000", "fe80::1", "not a host's address"},
		{"6/unspecified", six, group6, "[::]:5000", "fe80::1", "not a host's address"},
		{"6/ourselves", six, group6, "[2001:db8::1]:5000", "fe80::1", "not a host's address"},
		{"6/anycast of all routers", six, group6, "[2001:db8::]:5000", "fe80::1", "network, broadcast or anycast address"},
		{"6/last is a host", six, group6, "[2001:db8::ffff:ffff:ffff:ffff]:5000", "fe80::1", ""},
		{"6/first of two", six, group6, "[fd00::]:5000", "fe80::1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := datagram.Packet{Source: netip.MustParseAddrPort(c.source), Destination: addr(c.to)}
			if got := c.addresses.Refuses(p, c.group); got != c.wantRefused {
				t.Errorf("refused %q, want %q", got, c.wantRefused)
			}
		})
	}
}
