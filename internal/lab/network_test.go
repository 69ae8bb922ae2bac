package lab_test

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
)

// What must arrive may take patience; what must not is watched for doubt.
const (
	patience = 3 * time.Second
	doubt    = 200 * time.Millisecond
)

// arrives sends to a port of a host that listens at the very address, and fails
// the test when it is not as wanted: that it arrives there from source, and that
// the answer comes back. An invalid source is any.
func arrives(t *testing.T, what string, from *lab.Host, to netip.Addr, receiver *lab.Host, source netip.Addr) {
	t.Helper()
	for _, protocol := range []string{"UDP", "TCP"} {
		at := to
		if to == lab.GatewayWANLinkLocal {
			at = to.WithZone(lab.WANInterface) // of the gateway's two links, this one
		}
		k := lab.Knock{Protocol: protocol, From: from, To: netip.AddrPortFrom(to, 8000), Receiver: receiver,
			At: netip.AddrPortFrom(at, 8000), Patience: patience, Answer: true}
		got, err := k.Send(t.Context())
		switch {
		case err != nil:
			t.Errorf("%s, %s: %v", what, protocol, err)
		case !got.Arrived || !got.Answered:
			t.Errorf("%s, %s: arrived %v, answered %v", what, protocol, got.Arrived, got.Answered)
		case source.IsValid() && got.Source.Addr() != source:
			t.Errorf("%s, %s: came from %v, want %v", what, protocol, got.Source, source)
		}
	}
}

// fails fails the test when a packet arrives, at whatever address of the host.
func fails(t *testing.T, what string, from *lab.Host, to netip.Addr, receiver *lab.Host) {
	t.Helper()
	var both sync.WaitGroup
	for _, protocol := range []string{"UDP", "TCP"} {
		both.Go(func() {
			arrived, src, err := lab.Probe(t.Context(), protocol, from, netip.AddrPortFrom(to, 8000), receiver, 8000, doubt)
			if err != nil || arrived {
				t.Errorf("%s, %s: arrived %v from %v, %v", what, protocol, arrived, src, err)
			}
		})
	}
	both.Wait()
}

// TestNetworkCarriesPackets: hosts reach each other and the gateway, and the
// Internet reaches the gateway and, without a firewall, the LAN.
func TestNetworkCarriesPackets(t *testing.T) {
	t.Parallel()
	n := network(t, "console", "laptop")
	console, laptop := n.Host("console"), n.Host("laptop")
	for _, c := range []struct {
		name     string
		from, to *lab.Host
		addr     netip.Addr
		source   netip.Addr
	}{
		{"host to host", console, laptop, laptop.Addr, console.Addr},
		{"host to gateway", laptop, n.Gateway, lab.GatewayLAN, laptop.Addr},
		{"internet to gateway", n.Internet, n.Gateway, lab.GatewayWAN, lab.InternetOne},
		{"host to internet", laptop, n.Internet, lab.InternetTwo, laptop.Addr},
		{"IPv6/host to host", console, laptop, laptop.Addr6, console.Addr6},
		{"IPv6/host to gateway", laptop, n.Gateway, lab.GatewayLAN6, laptop.Addr6},
		{"IPv6/internet to gateway", n.Internet, n.Gateway, lab.GatewayWAN6, netip.Addr{}},
		{"IPv6/host to internet", laptop, n.Internet, lab.InternetTwo6, laptop.Addr6},
		{"IPv6/internet to host", n.Internet, laptop, laptop.Addr6, netip.Addr{}},
		{"link-local/host to host", console, laptop, laptop.LinkLocal, console.LinkLocal},
		{"link-local/host to gateway", laptop, n.Gateway, lab.GatewayLinkLocal, laptop.LinkLocal},
		{"link-local/gateway to host", n.Gateway, console, console.LinkLocal, lab.GatewayLinkLocal},
	} {
		arrives(t, c.name, c.from, c.addr, c.to, c.source)
	}
}

// TestAddresses: they are those of the plan, there are no others, and nobody
// waits for one.
func TestAddresses(t *testing.T) {
	t.Parallel()
	n := network(t, "console", "laptop")
	must(t, n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.50.0/24")))
	for _, c := range []struct {
		host   *lab.Host
		ifname string
		want   []string
	}{
		{n.Gateway, lab.Bridge, []string{"2001:db8:77::1/64", "fe80::1/64"}},
		{n.Gateway, lab.WANInterface, []string{"2001:db8:5::5/64", "fe80::ff:fe4d:105/64"}},
		{n.Gateway, "lan10", nil},
		{n.Gateway, "guest0", []string{"2001:db8:50::1/64", "fe80::1/64"}},
		{n.Internet, lab.HostPort, []string{"2001:db8:5::66/64", "2001:db8:5::67/64", "fe80::ff:fe4d:142/64"}},
		{n.Host("console"), lab.HostPort, []string{"2001:db8:77::10/64", "fe80::ff:fe4d:a/64"}},
		{n.Host("laptop"), lab.HostPort, []string{"2001:db8:77::20/64", "fe80::ff:fe4d:14/64"}},
		{n.Host("guest"), lab.HostPort, []string{"2001:db8:50::10/64", "fe80::ff:fe4d:432/64"}},
	} {
		if diff := cmp.Diff(c.want, addresses(t, c.host, c.ifname)); diff != "" {
			t.Errorf("%s of %s (-want +got):\n%s", c.ifname, c.host.Name, diff)
		}
	}
	laptop := n.Host("laptop")
	if laptop.Addr6.String() != "2001:db8:77::20" || laptop.LinkLocal.String() != "fe80::ff:fe4d:14" {
		t.Errorf("the laptop says %s and %s", laptop.Addr6, laptop.LinkLocal)
	}
	if n.Gateway.Addr6 != lab.GatewayLAN6 || n.Gateway.LinkLocal != lab.GatewayLinkLocal || n.Internet.Addr6 != lab.InternetOne6 {
		t.Errorf("the gateway says %s and %s, the Internet %s", n.Gateway.Addr6, n.Gateway.LinkLocal, n.Internet.Addr6)
	}
	arrives(t, "guest to gateway", n.Host("guest"), lab.GatewayLAN6, n.Gateway, n.Host("guest").Addr6)
}

// addresses are an interface's of IPv6 in order.
func addresses(t *testing.T, h *lab.Host, ifname string) (all []string) {
	t.Helper()
	l, err := h.Netlink().LinkByName(ifname)
	must(t, err)
	list, err := h.Netlink().AddrList(l, netlink.FAMILY_V6)
	must(t, err)
	for _, a := range list {
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			t.Errorf("%s of %s is not usable yet: %#x", a.IPNet, ifname, a.Flags)
		}
		all = append(all, a.IPNet.String())
	}
	slices.Sort(all)
	return all
}

// TestExtraAddress: a host may have more addresses, and lose them.
func TestExtraAddress(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	laptop := n.Host("laptop")
	for _, s := range []string{"2001:db8:77::abcd:1", "fd00:77::20", "192.168.77.99"} {
		a := netip.MustParseAddr(s)
		must(t, laptop.AddAddress(a))
		if a.IsPrivate() && a.Is6() {
			must(t, n.Gateway.AddAddress(netip.MustParseAddr("fd00:77::1")))
		}
		arrives(t, s, n.Gateway, a, laptop, netip.Addr{})
		k := lab.Knock{Protocol: "UDP", From: laptop, Source: netip.AddrPortFrom(a, 4444), To: netip.AddrPortFrom(n.Gateway.Addr6, 8000),
			Receiver: n.Gateway, At: netip.AddrPortFrom(n.Gateway.Addr6, 8000), Patience: patience, Answer: true}
		if a.Is4() {
			k.To = netip.AddrPortFrom(lab.GatewayLAN, 8000)
			k.At = k.To
		}
		if got, err := k.Send(t.Context()); err != nil || !got.Answered || got.Source != k.Source {
			t.Errorf("from %s: %+v, %v", s, got, err)
		}
		must(t, laptop.RemoveAddress(a))
		fails(t, s+" gone", n.Gateway, a, laptop)
	}
	if _, err := (lab.Knock{Protocol: "TCP", From: laptop, Source: netip.MustParseAddrPort("[2001:db8:77::abcd:1]:0"),
		To: netip.AddrPortFrom(lab.GatewayLAN6, 8000), Receiver: n.Gateway, At: netip.AddrPortFrom(lab.GatewayLAN6, 8000), Patience: doubt}).Send(t.Context()); err == nil {
		t.Error("a source that the host does not have is a failure of the lab")
	}
	arrives(t, "the first address", n.Gateway, laptop.Addr6, laptop, netip.Addr{})
}

// TestRenumber: with a new prefix the old addresses are gone everywhere, a
// privacy address too, and the Internet knows the way to the new ones.
func TestRenumber(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop", "console")
	laptop := n.Host("laptop")
	old, private := laptop.Addr6, netip.MustParseAddr("2001:db8:77::abcd:1")
	must(t, laptop.AddAddress(private))
	must(t, n.AddLAN6(netip.MustParsePrefix("fd00:77::/64")))
	if laptop.Addr6 != old {
		t.Errorf("a private prefix is no global address, but it is now %s", laptop.Addr6)
	}
	to := netip.MustParsePrefix("2001:db8:78::/64")
	must(t, n.RenumberLAN6(lab.LANPrefix6, to))
	if laptop.Addr6.String() != "2001:db8:78::10" || n.Gateway.Addr6.String() != "2001:db8:78::1" {
		t.Errorf("addresses are now %s and %s", laptop.Addr6, n.Gateway.Addr6)
	}
	want := []string{"2001:db8:78::10/64", "fd00:77::10/64", "fe80::ff:fe4d:a/64"}
	if diff := cmp.Diff(want, addresses(t, laptop, lab.HostPort)); diff != "" {
		t.Errorf("the laptop (-want +got):\n%s", diff)
	}
	want = []string{"2001:db8:78::1/64", "fd00:77::1/64", "fe80::1/64"}
	if diff := cmp.Diff(want, addresses(t, n.Gateway, lab.Bridge)); diff != "" {
		t.Errorf("the gateway (-want +got):\n%s", diff)
	}
	arrives(t, "in", n.Internet, laptop.Addr6, laptop, lab.InternetOne6)
	arrives(t, "out", laptop, lab.InternetOne6, n.Internet, laptop.Addr6)
	arrives(t, "private", n.Host("console"), netip.MustParseAddr("fd00:77::10"), laptop, netip.MustParseAddr("fd00:77::20"))
	fails(t, "the old address", n.Gateway, old, laptop)
	must(t, n.AddHost("late", netip.MustParseAddr("192.168.77.130")))
	if late := n.Host("late"); late.Addr6.String() != "2001:db8:78::130" {
		t.Errorf("a host that comes later has %s", late.Addr6)
	} else {
		arrives(t, "late", late, lab.InternetOne6, n.Internet, late.Addr6)
	}
	if err := n.AddLAN6(to); err == nil {
		t.Error("the same prefix twice")
	}
	if err := n.RemoveLAN6(lab.LANPrefix6); err == nil {
		t.Error("a prefix removed that is not there")
	}
}

// TestIPv6ComesLate: on the WAN, and on the LAN.
func TestIPv6ComesLate(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	laptop := n.Host("laptop")
	must(t, n.RemoveWAN6())
	fails(t, "out without WAN", laptop, lab.InternetOne6, n.Internet)
	if diff := cmp.Diff([]string{"fe80::ff:fe4d:105/64"}, addresses(t, n.Gateway, lab.WANInterface)); diff != "" {
		t.Errorf("the WAN (-want +got):\n%s", diff)
	}
	arrives(t, "link-local of the WAN", n.Internet, lab.GatewayWANLinkLocal, n.Gateway, n.Internet.LinkLocal)
	must(t, n.AddWAN6())
	arrives(t, "out", laptop, lab.InternetOne6, n.Internet, laptop.Addr6)
	must(t, n.RemoveLAN6(lab.LANPrefix6))
	if laptop.Addr6.IsValid() || n.Gateway.Addr6.IsValid() {
		t.Errorf("addresses are still %s and %s", laptop.Addr6, n.Gateway.Addr6)
	}
	arrives(t, "link-local", laptop, lab.GatewayLinkLocal, n.Gateway, laptop.LinkLocal)
	must(t, n.AddLAN6(lab.LANPrefix6))
	arrives(t, "out again", laptop, lab.InternetOne6, n.Internet, laptop.Addr6)
}

// TestIPv4Only: a network without IPv6 has not even link-local addresses.
func TestIPv4Only(t *testing.T) {
	t.Parallel()
	n, err := lab.NewIPv4("laptop")
	must(t, err)
	t.Cleanup(n.Close)
	must(t, n.HostFirewall())
	laptop := n.Host("laptop")
	for h, ifname := range map[*lab.Host]string{n.Gateway: lab.WANInterface, n.Internet: lab.HostPort, laptop: lab.HostPort} {
		if got := addresses(t, h, ifname); got != nil {
			t.Errorf("%s has %v", h.Name, got)
		}
	}
	if laptop.Addr6.IsValid() || laptop.LinkLocal.IsValid() || n.HasIPv6() {
		t.Errorf("the laptop says %s and %s", laptop.Addr6, laptop.LinkLocal)
	}
	if n.AddWAN6() == nil || n.RemoveWAN6() == nil || n.AddLAN6(lab.LANPrefix6) == nil {
		t.Error("IPv6 was added to a network without it")
	}
	arrives(t, "IPv4", laptop, lab.InternetOne, n.Internet, lab.GatewayWAN)
}
