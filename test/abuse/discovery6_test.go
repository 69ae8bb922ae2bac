package abuse

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv6"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestDiscovery6: SSDP-1 and SSDP-13. A gateway is found by each group and by its
// addresses, and LOCATION is one that fits who searched; what it leads to is the whole
// device, at those addresses.
func TestDiscovery6(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.Host("a")
	for name, x := range map[string]struct {
		to       netip.AddrPort
		source   netip.Addr
		location netip.Addr
	}{
		"link's group, link-local":   {lab.Group6LinkLocal, a.LinkLocal, lab.GatewayLinkLocal},
		"link's group, global":       {lab.Group6LinkLocal, a.Addr6, lab.GatewayLAN6},
		"site's group, global":       {lab.Group6SiteLocal, a.Addr6, lab.GatewayLAN6},
		"site's group, link-local":   {lab.Group6SiteLocal, a.LinkLocal, lab.GatewayLinkLocal},
		"SSDP-13/link-local address": {netip.AddrPortFrom(lab.GatewayLinkLocal, 1900), a.LinkLocal, lab.GatewayLinkLocal},
		"SSDP-13/global address":     {netip.AddrPortFrom(lab.GatewayLAN6, 1900), a.Addr6, lab.GatewayLAN6},
	} {
		for _, target := range []string{lab.IGD1, lab.IGD2, "upnp:rootdevice"} {
			c := lab.NewControlPoint(a)
			c.Source = x.source
			ctx, cancel := contextFor(t, soon)
			found, err := c.Discover(ctx, lab.Search{Target: target, To: x.to, Source: x.source})
			if err != nil || !strings.HasPrefix(found.Location(), "http://["+x.location.String()+"]:5000/") || found.Header.Get("ST") != target {
				t.Errorf("%s: %s is at %s as %s, %v", name, target, found.Location(), found.Header.Get("ST"), err)
			}
			if err := c.Read(ctx, found.Location(), lab.WANIPv6FC1); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			cancel()
		}
	}
}

// TestSilence6: SSDP-10, SSDP-14, SSDP-17, A2 and A7. What is malformed, and who is outside,
// gets no answer by IPv6 either.
func TestSilence6(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	before := r.World(t)
	good := "M-SEARCH * HTTP/1.1\r\nHOST: [FF02::C]:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: upnp:rootdevice\r\n\r\n"
	for name, x := range map[string]struct {
		h       *lab.Host
		to      netip.AddrPort
		message string
		heard   bool
	}{
		"good":                         {r.Host("a"), lab.Group6LinkLocal, good, true},
		"SSDP-10/no MX":                {r.Host("a"), lab.Group6LinkLocal, strings.Replace(good, "MX: 1\r\n", "", 1), false},
		"SSDP-14/another MAN":          {r.Host("a"), lab.Group6LinkLocal, strings.Replace(good, "discover", "other", 1), false},
		"SSDP-14/no ST":                {r.Host("a"), lab.Group6LinkLocal, strings.Replace(good, "ST: upnp:rootdevice\r\n", "", 1), false},
		"global scope (UDA 1.1)":       {r.Host("a"), netip.MustParseAddrPort("[ff0e::c]:1900"), good, false},
		"SSDP-17/A7/WAN, link's group": {r.Internet, lab.Group6LinkLocal, good, false},
		"SSDP-17/A7/WAN, site's group": {r.Internet, lab.Group6SiteLocal, good, false},
		"SSDP-17/A7/WAN, its address":  {r.Internet, netip.AddrPortFrom(lab.GatewayWAN6, 1900), good, false},
		"SSDP-17/A7/WAN, LAN address":  {r.Internet, netip.AddrPortFrom(lab.GatewayLAN6, 1900), good, false},
	} {
		if got := hears6(t, x.h, x.to, x.message, good); got != x.heard {
			t.Errorf("%s: answered %v, want %v", name, got, x.heard)
		}
	}
	r.Unchanged(t, before, "A2", "A7")
}

// hears6 sends a search for the root device and says whether it is answered. On the
// LAN the good search that comes after it, for something else, is answered last.
func hears6(t *testing.T, h *lab.Host, to netip.AddrPort, message, good string) bool {
	t.Helper()
	conn, err := h.ListenPacket("[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := ipv6.NewPacketConn(conn).SetMulticastInterface(port(t, h)); err != nil {
		t.Fatal(err)
	}
	if to.Addr().IsLinkLocalMulticast() || to.Addr().IsLinkLocalUnicast() {
		to = netip.AddrPortFrom(h.Zoned(to.Addr()), to.Port())
	}
	if _, err := conn.WriteToUDPAddrPort([]byte(message), to); err != nil {
		return false // no route: nobody heard
	}
	wait := 500 * time.Millisecond
	if h.Name != "internet" {
		wait = soon
		other := strings.Replace(good, "upnp:rootdevice", lab.IGD1, 1)
		if _, err := conn.WriteToUDPAddrPort([]byte(other), netip.AddrPortFrom(h.Zoned(lab.Group6LinkLocal.Addr()), 1900)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, _, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil && wait == soon {
		t.Fatal("the good search was not answered:", err)
	}
	return err == nil && strings.Contains(string(buf[:n]), "ST: upnp:rootdevice\r\n")
}

// port names a host's own interface to package net.
func port(t *testing.T, h *lab.Host) *net.Interface {
	t.Helper()
	l, err := h.Netlink().LinkByName(lab.HostPort)
	if err != nil {
		t.Fatal(err)
	}
	return &net.Interface{Index: l.Attrs().Index, Name: lab.HostPort}
}

// TestAdvertisement6: SSDP-19 and SSDP-23. At the start both groups hear of the gateway,
// each of its address there, with one hop on the link and ten on the site; a new
// prefix is a new appearance on the site, and nothing on the link.
func TestAdvertisement6(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	a := n.Host("a")
	ear, err := a.ListenPacket("[::]:1900")
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	packets := ipv6.NewPacketConn(ear)
	err = packets.SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit, true)
	for _, group := range []netip.AddrPort{lab.Group6LinkLocal, lab.Group6SiteLocal} {
		err = errors.Join(err, packets.JoinGroup(port(t, a), net.UDPAddrFromAddrPort(group)))
	}
	if err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, noRates)
	// alive waits for a notification of the root device to a group.
	alive := func(group netip.AddrPort, location string, hops int) (boot string) {
		t.Helper()
		if err := ear.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2048)
		for {
			n, control, _, err := packets.ReadFrom(buf)
			if err != nil {
				t.Fatalf("nothing alive at %s for %s: %v", group, location, err)
			}
			text := string(buf[:n])
			if !control.Dst.Equal(group.Addr().AsSlice()) || !strings.Contains(text, "NTS: ssdp:alive") || !strings.Contains(text, "NT: upnp:rootdevice\r\n") ||
				!strings.Contains(text, "LOCATION: http://["+location+"]:5000/") {
				continue
			}
			if control.HopLimit != hops || !strings.Contains(text, "HOST: "+strings.ToUpper(group.String())+"\r\n") {
				t.Errorf("%d hops:\n%s", control.HopLimit, text)
			}
			_, rest, _ := strings.Cut(text, "BOOTID.UPNP.ORG: ")
			boot, _, _ = strings.Cut(rest, "\r\n")
			return boot
		}
	}
	alive(lab.Group6LinkLocal, "fe80::1", 1)
	first := alive(lab.Group6SiteLocal, "2001:db8:77::1", 10)
	if err := r.RenumberLAN6(lab.LANPrefix6, netip.MustParsePrefix("2001:db8:78::/64")); err != nil {
		t.Fatal(err)
	}
	if second := alive(lab.Group6SiteLocal, "2001:db8:78::1", 10); second <= first {
		t.Errorf("SSDP-23: BOOTID %s after %s", second, first)
	}
}
