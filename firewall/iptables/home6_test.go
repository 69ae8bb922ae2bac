package iptables_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/portmap"
)

// The IPv6 side of the home.
const (
	alice6 = "[2001:db8:77::10]"
	bob6   = "[2001:db8:77::20]"
	gate6  = "[2001:db8:77::1]"
	wan6   = "[2001:db8:5::5]"
	peerX6 = "[2001:db8:5::66]"
	peerY6 = "[2001:db8:5::67]"
)

// newHomeNet6 is the home with IPv6; the world has a route to the LAN.
func newHomeNet6(t *testing.T, flavour string) *homeNet {
	h := newHomeNet(t, flavour)
	for _, end := range []struct {
		n             *namespace
		link          string
		addrs, routes []string
	}{
		{h.gw, "lan0", []string{gate6}, nil},
		{h.gw, "wan0", []string{wan6}, nil},
		{h.alice, "eth0", []string{alice6}, []string{"::/0 " + gate6}},
		{h.bob, "eth0", []string{bob6}, []string{"::/0 " + gate6}},
		{h.world, "eth0", []string{peerX6, peerY6}, []string{"2001:db8:77::/64 " + wan6}},
	} {
		end.n.links(func(l *netlink.Handle) error {
			link, err := l.LinkByName(end.link)
			if err != nil {
				return err
			}
			for _, a := range end.addrs {
				err = errors.Join(err, l.AddrAdd(link, &netlink.Addr{
					IPNet: &net.IPNet{IP: net.ParseIP(strings.Trim(a, "[]")), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD,
				}))
			}
			for _, r := range end.routes {
				to, via, _ := strings.Cut(r, " ")
				_, dst, _ := net.ParseCIDR(to)
				err = errors.Join(err, l.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(strings.Trim(via, "[]"))}))
			}
			return err
		})
	}
	h.gw.sysctl("net/ipv6/conf/all/forwarding", "1")
	h.gw.iptables("6", h.flavour, "-I FORWARD -p icmpv6 -j ACCEPT")
	// Everybody has met before the first test of silence.
	for _, host := range []string{alice6, bob6} {
		for deadline := time.Now().Add(reach); h.world.ping(host, silence) != nil; {
			if time.Now().After(deadline) {
				t.Fatalf("the world does not reach %s", host)
			}
		}
	}
	return h
}

// pinhole makes one, to "[2001:db8:77::10]:6000", for an hour.
func (h *homeNet) pinhole(id uint64, transport, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	h.t.Helper()
	end := netip.MustParseAddrPort(internal)
	m := portmap.Mapping{
		ID: id, Kind: portmap.Pinhole6, Transport: portmap.UDP, External: end, Internal: end,
		Created: time.Now(), Expires: time.Now().Add(time.Hour),
	}
	if transport == "tcp" {
		m.Transport = portmap.TCP
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

// pin opens one.
func (h *homeNet) pin(transport, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	h.t.Helper()
	h.lastID++
	m := h.pinhole(h.lastID, transport, internal, change...)
	h.apply([]portmap.Mapping{m}, nil)
	return m
}

// from restricts a mapping: "2001:db8:9::/64", or with a source port
// "2001:db8:9::/64 53".
func from(remotes ...string) func(*portmap.Mapping) {
	return func(m *portmap.Mapping) {
		for _, text := range remotes {
			prefix, port, _ := strings.Cut(text, " ")
			r := portmap.Remote{Prefix: netip.MustParsePrefix(prefix)}
			if port != "" {
				fmt.Sscan(port, &r.Port)
			}
			m.Remotes = append(m.Remotes, r)
		}
	}
}

// ping waits for the answer of a host.
func (n *namespace) ping(to string, patience time.Duration) error {
	var c net.PacketConn
	n.must(func() (err error) {
		c, err = net.ListenPacket("ip6:ipv6-icmp", "::")
		return err
	})
	defer c.Close()
	const request, reply = 128, 129
	id := rand.N[uint16](1 << 15)
	host := netip.MustParseAddrPort(to + ":1").Addr()
	if _, err := c.WriteTo([]byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}, &net.IPAddr{IP: host.AsSlice()}); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for buf := make([]byte, 100); ; {
		got, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if got > 6 && buf[0] == reply && buf[4] == byte(id>>8) && buf[5] == byte(id) && from.String() == host.String() {
			return nil
		}
	}
}
