package ssdp_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"portcullis/ssdp"
)

// What the gateway of newHome6 has on its first LAN: linkAddr, globalAddr and,
// where a test says so, uniqueAddr. The second LAN has the same link-local one.
var (
	otherAddr  = netip.MustParseAddr("2001:db8:78::1")
	prefixes61 = []netip.Prefix{netip.MustParsePrefix("fe80::/64"), netip.MustParsePrefix("2001:db8:78::/64")}
)

// newHome6 is newHome in IPv6.
func newHome6(t *testing.T) *home {
	t.Helper()
	h := &home{gateway: newNamespace(t), a: newNamespace(t), b: newNamespace(t), x: newNamespace(t)}
	h.lan0 = wire(t, h.gateway, "lan0", []string{"fe80::1/64", "2001:db8:77::1/64"},
		h.a, "eth0", []string{"fe80::50/64", "2001:db8:77::50/64", "2001:db8:9::9/128"})
	h.lan1 = wire(t, h.gateway, "lan1", []string{"fe80::1/64", "2001:db8:78::1/64"},
		h.b, "eth0", []string{"fe80::60/64", "2001:db8:78::60/64", "2001:db8:77::99/128"})
	wire(t, h.gateway, "wan0", []string{"fe80::5/64", "2001:db8:5::5/64"}, h.x, "eth0", []string{"fe80::66/64", "2001:db8:5::66/64"})
	via := func(gw string) func() error {
		return func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gw)})
		}
	}
	h.a.do(t, via("fe80::1"))
	h.b.do(t, via("fe80::1"))
	h.x.do(t, via("fe80::5"))
	return h
}

// networkConfig6 is the configuration of a server of IPv6 on lan0.
func (h *home) networkConfig6(w slog.Handler) ssdp.Config {
	cfg := h.networkConfig(w)
	cfg.IPv6 = true
	return cfg
}

// serve6 runs one on lan0 at its two addresses.
func (h *home) serve6(t *testing.T, cfg ssdp.Config) (s *ssdp.Server, stop func()) {
	t.Helper()
	return serveAt(t, listenBy(t, h.gateway, "lan0", ssdp.Listen6), cfg, []netip.Addr{linkAddr, globalAddr}, prefixes6)
}

// located gives the address that a LOCATION names, "" when there is none.
func located(m message) string {
	_, host, _ := strings.Cut(m.header.Get("LOCATION"), "http://")
	host, _, _ = strings.Cut(host, ":5000/")
	return host
}

// TestNetworkSearch6: digest 1.9, D1, D2 and D13 over IPv6 with real datagrams.
func TestNetworkSearch6(t *testing.T) {
	t.Parallel()
	h := newHome6(t)
	h.serve6(t, h.networkConfig6(newWatcher()))
	link, global := netip.AddrPortFrom(linkAddr, 1900), netip.AddrPortFrom(globalAddr, 1900)
	t.Run("D2/all", func(t *testing.T) {
		client := bind(t, h.a, "eth0", "[fe80::50]:0")
		client.send(search("ssdp:all", "MX: 1"), ssdp.GroupLink)
		var got []string
		for range announced() {
			m, from := client.receive()
			got = append(got, m.row())
			if from != link || located(m) != "[fe80::1]" {
				t.Errorf("at %s from %v", located(m), from)
			}
		}
		if diff := cmp.Diff(announced(), got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	for _, c := range []struct {
		name     string
		source   string
		packet   []byte
		to, from netip.AddrPort
		location string
	}{
		{"D1/link's group, link-local", "[fe80::50]:0", search(root, "MX: 2"), ssdp.GroupLink, link, "[fe80::1]"},
		{"D1/site's group, global", "[2001:db8:77::50]:0", search(root, "MX: 5"), ssdp.GroupSite, global, "[2001:db8:77::1]"},
		{"D1/link's group, global", "[2001:db8:77::50]:0", search(root, "MX: 2"), ssdp.GroupLink, global, "[2001:db8:77::1]"},
		{"D1/site's group, link-local", "[fe80::50]:0", search(root, "MX: 2"), ssdp.GroupSite, link, "[fe80::1]"},
		{"D13/link-local", "[fe80::50]:0", search(root), link, link, "[fe80::1]"},
		{"D13/global", "[2001:db8:77::50]:0", search(root), global, global, "[2001:db8:77::1]"},
		{"D13/link-local asks global", "[fe80::50]:0", search(root), global, global, "[fe80::1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := bind(t, h.a, "eth0", c.source)
			best := time.Hour
			for range 3 {
				began := time.Now()
				client.send(c.packet, c.to)
				m, from := client.receive()
				best = min(best, time.Since(began))
				if m.row() != announced()[0] || from != c.from || located(m) != c.location {
					t.Fatalf("%q at %s from %v", m.row(), located(m), from)
				}
			}
			if best > 50*time.Millisecond {
				t.Errorf("answered after %v", best)
			}
		})
	}
}

// TestNetworkSilence6: what comes from the wrong place, and proof that it came.
func TestNetworkSilence6(t *testing.T) {
	t.Parallel()
	h := newHome6(t)
	logs := map[string]watcher{"lan0": newWatcher(), "lan1": newWatcher()}
	h.serve6(t, h.networkConfig6(logs["lan0"]))
	cfg := h.networkConfig6(logs["lan1"])
	cfg.Ifname, cfg.Ifindex = "lan1", h.lan1
	serveAt(t, listenBy(t, h.gateway, "lan1", ssdp.Listen6), cfg, []netip.Addr{linkAddr, otherAddr}, prefixes61)
	// silent fails if a server saw a datagram that a test has not asked about.
	silent := func(t *testing.T) {
		t.Helper()
		for name, w := range logs {
			if len(w.seen) != 0 {
				t.Errorf("%s saw a datagram too: %+v", name, <-w.seen)
			}
		}
	}

	for _, c := range []struct {
		name   string
		host   *namespace
		source string
		to     string
		lan    string
		reason string
	}{
		{"D17/A6/off link, link's group", h.a, "[2001:db8:9::9]:4000", "[ff02::c]:1900", "lan0", "off link"},
		{"D17/A6/off link, site's group", h.a, "[2001:db8:9::9]:4001", "[ff05::c]:1900", "lan0", "off link"},
		{"D17/A6/off link, unicast", h.a, "[2001:db8:9::9]:4002", "[2001:db8:77::1]:1900", "lan0", "off link"},
		{"A4/external address", h.a, "[2001:db8:77::50]:4003", "[2001:db8:5::5]:1900", "lan0", "sent to another address"},
		{"A4/address of the other LAN", h.a, "[2001:db8:77::50]:4004", "[2001:db8:78::1]:1900", "lan0", "sent to another address"},
		{"E5/port 19", h.a, "[fe80::50]:19", "[ff02::c]:1900", "lan0", "loop port"},
		{"E7/source of the first LAN on the second", h.b, "[2001:db8:77::99]:4005", "[ff05::c]:1900", "lan1", "off link"},
		{"A4/LAN 1's address from LAN 2", h.b, "[2001:db8:78::60]:4006", "[2001:db8:77::1]:1900", "lan1", "sent to another address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := bind(t, c.host, "eth0", c.source)
			client.send(search(root, "MX: 1"), netip.MustParseAddrPort(c.to))
			if got, want := logs[c.lan].next(t), (ignored{c.reason, c.source}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			silent(t)
		})
	}

	t.Run("A4/another group does not even arrive", func(t *testing.T) {
		group := netip.MustParseAddrPort("[ff0e::c]:1900") // UDA 1.1 had it
		member := bind(t, h.gateway, "lan0", "[::]:1900", unix.SO_REUSEADDR)
		member.joinGroup(h.gateway, "lan0", group)
		client := bind(t, h.a, "eth0", "[2001:db8:77::50]:0")
		client.send(search("uuid:wrong", "MX: 1"), group)
		member.receive()
		client.send(search(root, "MX: 1"), ssdp.GroupSite)
		client.receive()
		silent(t)
	})

	t.Run("A2/A7/from the WAN", func(t *testing.T) {
		for _, to := range []string{"[2001:db8:77::1]:1900", "[2001:db8:5::5]:1900", "[fe80::5]:1900"} {
			source := "[2001:db8:5::66]:0"
			if strings.HasPrefix(to, "[fe80") {
				source = "[fe80::66]:0"
			}
			client := bind(t, h.x, "eth0", source)
			for _, group := range []netip.AddrPort{ssdp.GroupLink, ssdp.GroupSite} {
				client.send(search(root, "MX: 1"), group)
			}
			// By the same way and later: when its answer is back, those have come.
			client.connect(h.x, netip.MustParseAddrPort(to))
			if err := refused(client, search(root)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: %v", to, err)
			}
		}
		silent(t)
	})

	t.Run("E8/each LAN has its own location", func(t *testing.T) {
		for _, c := range []struct {
			host     *namespace
			source   string
			location string
		}{{h.a, "[2001:db8:77::50]:0", "[2001:db8:77::1]"}, {h.b, "[2001:db8:78::60]:0", "[2001:db8:78::1]"}} {
			client := bind(t, c.host, "eth0", c.source)
			client.send(search(root, "MX: 1"), ssdp.GroupSite)
			if m, _ := client.receive(); located(m) != c.location {
				t.Errorf("location %s, want %s", located(m), c.location)
			}
		}
	})
}

// ear6 hears both groups on a host, with what the header of each datagram said.
type ear6 struct {
	*endpoint
	p *ipv6.PacketConn
}

func newEar6(t *testing.T, ns *namespace) ear6 {
	t.Helper()
	e := ear6{endpoint: bind(t, ns, "eth0", "[::]:1900")}
	e.joinGroup(ns, "eth0", ssdp.GroupLink)
	e.joinGroup(ns, "eth0", ssdp.GroupSite)
	e.p = ipv6.NewPacketConn(e.udp)
	if err := e.p.SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit, true); err != nil {
		t.Fatal(err)
	}
	return e
}

// heard is what all notifications of one set have in common.
type heard struct {
	group          string
	from           string
	hops           int
	kind, location string
	boot           string
}

// expect waits for whole sets, in whatever order their datagrams come.
func (e ear6) expect(want map[heard]int) {
	e.t.Helper()
	left := 0
	for _, n := range want {
		left += n * len(announced())
	}
	got := map[heard]int{}
	rows := map[heard][]string{}
	for range left {
		if err := e.p.SetReadDeadline(time.Now().Add(patience)); err != nil {
			e.t.Fatal(err)
		}
		buf := make([]byte, 2048)
		n, cm, from, err := e.p.ReadFrom(buf)
		if err != nil {
			e.t.Fatalf("%v after %+v", err, got)
		}
		m := read(e.t, buf[:n])
		at, _ := netip.ParseAddrPort(from.String())
		k := heard{
			group: m.header.Get("HOST"), from: at.Addr().WithZone("").String(), hops: cm.HopLimit,
			kind: m.header.Get("NTS"), location: located(m), boot: m.header.Get("BOOTID.UPNP.ORG"),
		}
		if sent := "[" + strings.ToUpper(cm.Dst.String()) + "]:1900"; sent != k.group || at.Port() != 1900 {
			e.t.Errorf("HOST %s, but sent to %s, from port %d", k.group, sent, at.Port())
		}
		if rows[k] = append(rows[k], m.row()); len(rows[k])%len(announced()) == 0 {
			got[k]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.t.Fatalf("sets (-want +got):\n%s", diff)
	}
	for k, r := range rows {
		for set := range slices.Chunk(r, len(announced())) {
			if diff := cmp.Diff(announced(), set); diff != "" {
				e.t.Errorf("%+v (-want +got):\n%s", k, diff)
			}
		}
	}
}

// TestNetworkAnnouncements6: digest 1.9, D19, D21 and D23 as a host on the LAN
// hears them: each group from its own address, so many hops far, and the change of
// one scope unheard in the other. An address that is gone is taken back too.
func TestNetworkAnnouncements6(t *testing.T) {
	t.Parallel()
	h := newHome6(t)
	ear, deaf := newEar6(t, h.a), newEar6(t, h.b)
	cfg := h.networkConfig6(newWatcher())
	cfg.NewBootID = func(last uint32) uint32 { return last + 1 }
	server, stop := h.serve6(t, cfg)
	const link, site = "[FF02::C]:1900", "[FF05::C]:1900"
	ear.expect(map[heard]int{
		{link, "fe80::1", 1, "ssdp:byebye", "", "500"}:                        1,
		{link, "fe80::1", 1, "ssdp:alive", "[fe80::1]", "500"}:                3,
		{site, "2001:db8:77::1", 10, "ssdp:byebye", "", "500"}:                1,
		{site, "2001:db8:77::1", 10, "ssdp:alive", "[2001:db8:77::1]", "500"}: 3,
	})

	h.gateway.do(t, func() error { return renumber("lan0", "2001:db8:77::1/64", "2001:db8:79::1/64") })
	server.SetAddresses([]netip.Addr{linkAddr, netip.MustParseAddr("2001:db8:79::1")}, prefixes6)
	ear.expect(map[heard]int{
		{site, "2001:db8:79::1", 10, "ssdp:byebye", "", "500"}:                1,
		{site, "2001:db8:79::1", 10, "ssdp:alive", "[2001:db8:79::1]", "501"}: 3,
	})

	h.gateway.do(t, func() error { return renumber("lan0", "2001:db8:79::1/64", "") })
	server.SetAddresses([]netip.Addr{linkAddr}, prefixes6)
	ear.expect(map[heard]int{{site, "fe80::1", 10, "ssdp:byebye", "", "501"}: 1})

	stop()
	ear.expect(map[heard]int{{link, "fe80::1", 1, "ssdp:byebye", "", "500"}: 2})

	// E8: nothing of it on the other LAN. What was sent to it later is there.
	control := []byte("control")
	for _, group := range []netip.AddrPort{ssdp.GroupLink, ssdp.GroupSite} {
		bind(t, h.gateway, "lan1", "[2001:db8:78::1]:0").send(control, group)
		if err := deaf.udp.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2048)
		if n, _, err := deaf.udp.ReadFromUDPAddrPort(buf); err != nil || !bytes.Equal(buf[:n], control) {
			t.Errorf("the other LAN hears %q (%v)", buf[:n], err)
		}
	}
}

// TestPortSharing6 is TestPortSharing over IPv6, and shows that the two families
// are nothing to each other (abuse case A8).
func TestPortSharing6(t *testing.T) {
	t.Parallel()
	h := newHome6(t)
	client := bind(t, h.a, "eth0", "[fe80::50]:0")
	for _, c := range []struct {
		name    string
		address string
		options []int
	}{
		{"SO_REUSEADDR", "[::]:1900", []int{unix.SO_REUSEADDR}},
		{"SO_REUSEPORT", "[::]:1900", []int{unix.SO_REUSEPORT}},
		{"SO_REUSEADDR on the group", "[ff02::c]:1900", []int{unix.SO_REUSEADDR}},
	} {
		for _, first := range []string{"they came first", "we came first"} {
			t.Run(c.name+"/"+first, func(t *testing.T) {
				var other *endpoint
				var udp *net.UDPConn
				theirs := func() {
					other = bind(t, h.gateway, "lan0", c.address, c.options...)
					other.joinGroup(h.gateway, "lan0", ssdp.GroupLink)
				}
				ours := func() { udp = listenBy(t, h.gateway, "lan0", ssdp.Listen6) }
				steps := []func(){ours, theirs}
				if first == "they came first" {
					slices.Reverse(steps)
				}
				for _, step := range steps {
					step()
				}
				serveAt(t, udp, h.networkConfig6(newWatcher()), []netip.Addr{linkAddr}, prefixes6)
				client.send(search(root, "MX: 1"), ssdp.GroupLink)
				if m, _ := other.receive(); m.line != "M-SEARCH * HTTP/1.1" {
					t.Errorf("they got %q", m.line)
				}
				if m, _ := client.receive(); m.row() != announced()[0] {
					t.Errorf("answer %q", m.row())
				}
				if slices.Contains(c.options, unix.SO_REUSEPORT) && first == "they came first" {
					return // what Listen6 says of unicast
				}
				client.send(search(root), netip.AddrPortFrom(linkAddr, 1900))
				if m, _ := client.receive(); m.row() != announced()[0] {
					t.Errorf("answer to unicast %q", m.row())
				}
			})
		}
	}
	t.Run("A8/IPv4 alone has the port", func(t *testing.T) {
		bind(t, h.gateway, "lan0", "0.0.0.0:1900")
		h.serve6(t, h.networkConfig6(newWatcher()))
		client.send(search(root, "MX: 1"), ssdp.GroupLink)
		client.receive()
	})
}

// TestListenRefused6: what stands in the way is said in a sentence; and what was
// opened leaves nothing behind.
func TestListenRefused6(t *testing.T) {
	t.Parallel()
	h := newHome6(t)
	members := func() (n int) {
		h.gateway.do(t, func() error {
			all, err := os.ReadFile("/proc/thread-self/net/igmp6")
			for line := range strings.Lines(string(all)) {
				if f := strings.Fields(line); len(f) > 2 && f[1] == "lan0" && strings.HasSuffix(f[2], "000000000000000c") {
					n++
				}
			}
			return err
		})
		return n
	}
	try := func(ifname string, opened func()) error {
		return h.gateway.try(func() error {
			udp, err := ssdp.Listen6(t.Context(), ifname)
			if err == nil {
				opened()
				err = udp.Close()
			}
			return err
		})
	}
	if err := try("nosuch0", nil); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("unknown interface: %v", err)
	}
	greedy := bind(t, h.gateway, "lan0", "[::]:1900")
	err := try("lan0", nil)
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "held by a program that does not share it") {
		t.Errorf("port taken: %v", err)
	}
	if err := greedy.udp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := try("lan0", func() {
		if n := members(); n != 2 {
			t.Errorf("a member of %d groups, want 2", n)
		}
	}); err != nil {
		t.Errorf("port free again: %v", err)
	}
	if n := members(); n != 0 {
		t.Errorf("still a member of %d groups", n)
	}
}
