package pcp_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// from returns the addresses that announcements have left from in an hour, sorted.
func from(r *rig) (all []netip.Addr) {
	time.Sleep(time.Hour)
	for _, s := range r.take() {
		if s.to == announced || s.to == announced6 {
			all = append(all, s.from)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// TestEveryAddress: each IPv4 address is asked and answers; one that comes, as a
// virtual router's does, is announced, and so are the others, for a host heeds its own
// router alone. One that goes is nothing to tell.
func TestEveryAddress(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		from(r) // of the start
		shared, stranger := netip.MustParseAddr("192.168.1.254"), netip.MustParseAddr("203.0.113.7")
		networks := []netip.Prefix{lanPrefix, netip.PrefixFrom(shared, 32)}
		if reply := r.askAt(shared, hostA, octets("0000")); reply != nil {
			t.Errorf("answered before the address is here: %s", words(reply))
		}
		r.server.SetAddresses([]netip.Addr{gatewayAddr, shared}, networks)
		if got := from(r); !slices.Equal(got, []netip.Addr{gatewayAddr, shared}) {
			t.Errorf("announced from %v", got)
		}
		for _, at := range []netip.Addr{gatewayAddr, shared} {
			r.asksAt(at, hostA, "0000", "00800000 ........ cb007107")
		}
		if reply := r.askAt(stranger, hostA, octets("0000")); reply != nil {
			t.Errorf("H11: answered at the external address: %s", words(reply))
		}
		r.server.SetAddresses([]netip.Addr{gatewayAddr, shared}, []netip.Prefix{lanPrefix}) // other networks
		r.server.SetAddresses([]netip.Addr{gatewayAddr}, []netip.Prefix{lanPrefix})
		if got := from(r); len(got) != 0 {
			t.Errorf("announced from %v", got)
		}
		r.asks(hostA, "0000", "00800000 ........ cb007107")
	})
}

// TestEveryAddress6: over IPv6 the router is a link-local address, of which there may be
// a virtual one, too; global ones come and go with no word.
func TestEveryAddress6(t *testing.T) {
	t.Parallel()
	inBubble6(t, nil, func(r *rig) {
		from(r)
		shared, global := netip.MustParseAddr("fe80::fe"), netip.MustParseAddr("2001:db8:77::fe")
		networks := []netip.Prefix{netip.MustParsePrefix("fe80::/64"), netip.MustParsePrefix("2001:db8:77::/64")}
		r.server.SetAddresses([]netip.Addr{gatewayLink, global}, networks)
		if got := from(r); len(got) != 0 {
			t.Errorf("a global address is announced from %v", got)
		}
		r.server.SetAddresses([]netip.Addr{gatewayLink, shared, global}, networks)
		if got := from(r); !slices.Equal(got, []netip.Addr{gatewayLink, shared}) {
			t.Errorf("announced from %v", got)
		}
	})
}
