package gena_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/gena"
	"portcullis/internal/netns/netnstest"
)

// TestDialLeavesByTheInterface: two LANs have a host of the same address, and
// the routing table knows one of them. The connection goes to the subscriber's.
func TestDialLeavesByTheInterface(t *testing.T) {
	t.Parallel()
	gate, first, second := netnstest.New(t, "gate"), netnstest.New(t, "first"), netnstest.New(t, "second")
	for ifname, host := range map[string]*netnstest.Space{"lan0": first, "lan1": second} {
		netnstest.Cable(gate, ifname+" 192.0.2.1/24 fe80::1/64", host, "eth0 192.0.2.10/24 fe80::10/64")
	}
	for _, tc := range []struct {
		name, iface, local, host string
		home                     *netnstest.Space
	}{
		{"routed LAN", "lan0", "192.0.2.1", "192.0.2.10", first},
		{"the other LAN", "lan1", "192.0.2.1", "192.0.2.10", second},
		{"link-local", "lan0", "fe80::1", "fe80::10", first},
		{"link-local on the other LAN", "lan1", "fe80::1", "fe80::10", second},
		{"link-local without a zone", "lan1", "fe80::1", "fe80::10", second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			local, host := netip.MustParseAddr(tc.local), netip.MustParseAddr(tc.host)
			l := tc.home.Listen(netip.AddrPortFrom(unspecified(host), 0).String())
			to := netip.AddrPortFrom(host, l.Addr().(*net.TCPAddr).AddrPort().Port())
			if host.Is6() {
				to = netip.AddrPortFrom(host.WithZone(tc.iface), to.Port())
			}
			if strings.HasSuffix(tc.name, "without a zone") {
				to = netip.AddrPortFrom(host, to.Port())
			}
			var ours net.Conn
			if err := gate.In(func() (err error) {
				ours, err = gena.Dial(t.Context(), tc.iface, local, to)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			_ = l.SetDeadline(time.Now().Add(patience))
			theirs, err := l.Accept()
			if err != nil {
				t.Fatal("nobody came:", err)
			}
			defer theirs.Close()
			if got := theirs.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().WithZone(""); got != local {
				t.Errorf("came from %v, want %v", got, local)
			}
		})
	}
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
