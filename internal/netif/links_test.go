package netif_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"portcullis/internal/netif"
)

// Links and addresses of the kinds that gateways have are what the library, which decodes
// all of every message, makes of them.
func TestLinksLikeTheLibrary(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Bridge("br-lan", nil, "lan0")
	s.Up("lan0", "host0", "br-lan")
	s.Bridge("alone", nil)
	for link, addr := range map[string]*netlink.Addr{
		"br-lan": {IPNet: network(t, "192.168.1.1/24"), Broadcast: net.IPv4(192, 168, 1, 255)},
		"host0":  {IPNet: network(t, "100.64.0.2/32"), Peer: network(t, "100.64.0.1/32")},
		"alone":  {IPNet: network(t, "2001:db8::2/128"), Peer: network(t, "2001:db8::/64")},
	} {
		s.must(s.h.AddrAdd(s.link(link), addr))
	}
	s.Address("br-lan", "2001:db8:1::1/64")
	state := s.read()
	links, err := s.h.LinkList()
	s.must(err)
	if len(links) != len(state.Links) || len(links) < 5 {
		t.Fatalf("%d links, the library has %d", len(state.Links), len(links))
	}
	for _, l := range links {
		a := l.Attrs()
		got, _ := state.LinkByIndex(a.Index)
		want := netif.Link{Index: a.Index, Name: a.Name, Kind: l.Type(), Master: a.MasterIndex,
			Up: a.Flags&net.FlagUp != 0, Running: a.Flags&net.FlagRunning != 0,
			Loopback: a.Flags&net.FlagLoopback != 0, PointToPoint: a.Flags&net.FlagPointToPoint != 0}
		copy(want.MAC[:], a.HardwareAddr)
		addrs, err := s.h.AddrList(l, netlink.FAMILY_ALL)
		s.must(err)
		var theirs, ours []string
		for _, a := range addrs {
			text := a.IPNet.String()
			if a.Peer != nil {
				text += " peer " + a.Peer.String()
			}
			theirs = append(theirs, text)
		}
		for _, a := range got.Addrs {
			text := a.Prefix.String()
			if a.Peer.IsValid() {
				text += " peer " + a.Peer.String()
			}
			ours = append(ours, text)
		}
		slices.Sort(theirs)
		slices.Sort(ours)
		if !slices.Equal(ours, theirs) {
			t.Errorf("%s: addresses %q, the library has %q", a.Name, ours, theirs)
		}
		if got.Addrs, got.Uplink = nil, (netif.Way{}); got.Name != want.Name || got.Kind != want.Kind || got.MAC != want.MAC ||
			got.Up != want.Up || got.Running != want.Running || got.Loopback != want.Loopback ||
			got.PointToPoint != want.PointToPoint || got.Master != want.Master {
			t.Errorf("%+v\nthe library has %+v", got, want)
		}
	}
}

func network(t *testing.T, s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return &net.IPNet{IP: ip, Mask: n.Mask}
}

// attr makes a netlink attribute.
func attr(typ uint16, value string) string {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return string(b)
}

// linkMessage is an interface "br0" with index 3, a bridge.
func linkMessage() []byte {
	m := make([]byte, 16)
	binary.NativeEndian.PutUint32(m[4:], 3)
	return append(m, attr(3, "br0\x00")+attr(1, "\x02\x00\x00\x00\x00\x01")+attr(18, attr(1, "bridge\x00"))...)
}

// addrMessage is 192.0.2.1/24 on the interface with index 3.
func addrMessage() []byte {
	m := []byte{2, 24, 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(m[4:], 3)
	return append(m, attr(1, "\xc0\x00\x02\x01")+attr(2, "\xc0\x00\x02\x01")...)
}

func TestParseLink(t *testing.T) {
	l, ok := netif.ParseLink(linkMessage())
	if !ok || l.Index != 3 || l.Name != "br0" || l.Kind != "bridge" || l.MAC != [6]byte{2, 0, 0, 0, 0, 1} {
		t.Errorf("%+v %v", l, ok)
	}
	index, a, ok := netif.ParseAddr(addrMessage())
	if !ok || index != 3 || a.Prefix != netip.MustParsePrefix("192.0.2.1/24") || a.Peer.IsValid() {
		t.Errorf("%d %+v %v", index, a, ok)
	}
	tooLong := addrMessage()
	tooLong[1] = 33
	if _, a, ok := netif.ParseAddr(tooLong); ok {
		t.Errorf("accepted: %+v", a)
	}
}

func FuzzLink(f *testing.F) {
	f.Add(linkMessage())
	f.Add(addrMessage())
	f.Add(linkMessage()[:15])
	f.Fuzz(func(t *testing.T, m []byte) {
		before := slices.Clone(m)
		if l, ok := netif.ParseLink(m); ok && (l.Index <= 0 || l.Name == "") {
			t.Errorf("accepted: %+v", l)
		}
		if _, a, ok := netif.ParseAddr(m); ok && (!a.Prefix.IsValid() || a.Prefix.Addr().Zone() != "") {
			t.Errorf("accepted: %+v", a)
		}
		if !slices.Equal(before, m) {
			t.Error("the message was changed")
		}
	})
}
