package netif_test

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portcullis/internal/netif"
)

// home describes a network in short: "NAME [KIND] word... ADDRESS...". Words:
// down, nocarrier, ppp, loopback, uplink[=TABLE], in=MASTER. An address may be followed
// by flags: "!tentative", "!deprecated", "!dynamic", "!link", "!peer=PREFIX".
// Indexes count from 1. A line "default NAME [METRIC] [src=ADDR]" or "default6
// NAME" is a route.
func home(t *testing.T, text string) netif.State {
	t.Helper()
	var s netif.State
	index := map[string]int{}
	var lines [][]string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		lines = append(lines, f)
		if f[0] != "default" && f[0] != "default6" {
			index[f[0]] = len(index) + 1
		}
	}
	for _, f := range lines {
		switch f[0] {
		case "default", "default6":
			r := netif.DefaultRoute{Index: index[f[1]]}
			for _, w := range f[2:] {
				if src, ok := strings.CutPrefix(w, "src="); ok {
					r.Source = netip.MustParseAddr(src)
				} else {
					r.Metric = r.Metric*10 + uint32(w[0]-'0')
				}
			}
			if f[0] == "default" {
				s.Default4 = append(s.Default4, r)
			} else {
				s.Default6 = append(s.Default6, r)
			}
		default:
			s.Links = append(s.Links, homeLink(t, f, index))
		}
	}
	return s
}

func homeLink(t *testing.T, f []string, index map[string]int) netif.Link {
	t.Helper()
	i := index[f[0]]
	l := netif.Link{Index: i, Name: f[0], Kind: "device", MAC: [6]byte{2, 0, 0, 0, 0, byte(i)}, Up: true, Running: true}
	for _, w := range f[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "down":
			l.Up, l.Running = false, false
		case "nocarrier":
			l.Running = false
		case "ppp":
			l.PointToPoint, l.MAC = true, [6]byte{}
		case "loopback":
			l.Loopback, l.MAC = true, [6]byte{}
		case "uplink": // by the main table, or another one
			l.Uplink = netif.Way{To: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.99.0.1"), Table: 254}
			if value != "" {
				table, err := strconv.Atoi(value)
				if err != nil {
					t.Fatal(err)
				}
				l.Uplink.Table = uint32(table)
			}
		case "in":
			l.Master = index[value]
		case "bridge", "veth", "vrf", "wireguard":
			l.Kind = w
			if w == "wireguard" {
				l.MAC = [6]byte{}
			}
		default:
			l.Addrs = append(l.Addrs, homeAddr(t, w))
		}
	}
	return l
}

// TestVRF: a LAN says that it is a member of one.
func TestVRF(t *testing.T) {
	t.Parallel()
	roles, err := netif.Choose(home(t, "vrf-home vrf\nlan1 in=vrf-home 192.168.3.1/24\nlan2 192.168.4.1/24"), netif.Settings{})
	if err != nil || len(roles.LAN) != 2 || !roles.LAN[0].InVRF || roles.LAN[1].InVRF {
		t.Errorf("%+v, %v", roles.LAN, err)
	}
}

func homeAddr(t *testing.T, w string) netif.Addr {
	t.Helper()
	parts := strings.Split(w, "!")
	p, err := netip.ParsePrefix(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	a := netif.Addr{Prefix: p}
	for _, flag := range parts[1:] {
		name, value, _ := strings.Cut(flag, "=")
		switch name {
		case "tentative":
			a.Tentative = true
		case "deprecated":
			a.Deprecated = true
		case "dynamic":
			a.Dynamic = true
		case "link":
			a.LinkScope = true
		case "peer":
			a.Peer = netip.MustParsePrefix(value)
		default:
			t.Fatalf("no flag %q", name)
		}
	}
	return a
}

const usual = `
	lo loopback 127.0.0.1/8 ::1/128
	wan0 203.0.113.5/24
	br-lan bridge 192.168.1.1/24 fe80::1/64!link 2001:db8:1::1/64
	lan0 veth in=br-lan
	default wan0`

// names returns the names of the LAN interfaces.
func names(r netif.Roles) string {
	var all []string
	for _, l := range r.LAN {
		all = append(all, l.Name)
	}
	return strings.Join(all, " ")
}

func TestChooseUsual(t *testing.T) {
	t.Parallel()
	got, err := netif.Choose(home(t, usual+"\ndefault6 wan0"), netif.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	want := netif.Roles{
		LAN: []netif.LAN{{
			Name: "br-lan", Index: 3, MAC: [6]byte{2, 0, 0, 0, 0, 3},
			Addr:     netip.MustParseAddr("192.168.1.1"),
			Addrs:    addrs("192.168.1.1", "fe80::1", "2001:db8:1::1"),
			Prefixes: prefixes("192.168.1.0/24", "fe80::/64", "2001:db8:1::/64"),
			Direct:   prefixes("192.168.1.0/24", "fe80::/64", "2001:db8:1::/64"),
		}},
		WAN: netif.WAN{
			Uplink:   netif.Uplink{Name: "wan0", Index: 2, Up: true, Addrs: addrs("203.0.113.5")},
			External: netip.MustParseAddr("203.0.113.5"),
		},
		WAN6: netif.Uplink{Name: "wan0", Index: 2, Up: false, Addrs: addrs("203.0.113.5")},
	}
	if diff := cmp.Diff(want, got, compareAddrs, cmpopts.IgnoreFields(netif.Roles{}, "Why")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantWhy := []string{
		"wan0 is the WAN: it holds the IPv4 default route with the lowest metric (0)",
		"wan0 is the IPv6 WAN: it holds the IPv6 default route with the lowest metric",
		"br-lan is a LAN: it is up, has a private address and holds no default route; its address is 192.168.1.1",
	}
	if diff := cmp.Diff(wantWhy, got.Why); diff != "" {
		t.Errorf("Why (-want +got):\n%s", diff)
	}
	if lan := got.LAN[0]; !lan.OnLink(netip.MustParseAddr("192.168.1.77")) || lan.OnLink(netip.MustParseAddr("192.168.2.1")) {
		t.Error("OnLink")
	}
}

// Which interfaces are served, by detection and by name.
func TestChooseLAN(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		state string
		set   netif.Settings
		lan   string // names
		wan   string
		err   error
		why   string // a part of one sentence
		warn  string // a part of the warning; "": there is none
	}{
		{name: "usual", state: usual, lan: "br-lan", wan: "wan0"},
		{name: "two LANs", state: usual + "\nbr-guest bridge 10.7.0.1/16\nlan9 172.16.5.1/24", lan: "br-lan br-guest lan9", wan: "wan0"},
		{name: "named: only that", state: usual + "\nbr-guest bridge 10.7.0.1/16", set: netif.Settings{LAN: []string{"br-guest"}}, lan: "br-guest", wan: "wan0"},
		{name: "named twice", state: usual, set: netif.Settings{LAN: []string{"br-lan", "br-lan"}}, lan: "br-lan", wan: "wan0"},
		{name: "named, in the order of index", state: usual + "\nbr-guest bridge 10.7.0.1/16", set: netif.Settings{LAN: []string{"br-guest", "br-lan"}}, lan: "br-lan br-guest", wan: "wan0"},
		{name: "one of two named is missing", state: usual, set: netif.Settings{LAN: []string{"br-lan", "br-iot"}}, lan: "br-lan", wan: "wan0", why: "br-iot is not served: it does not exist yet"},
		{name: "one of two named is down", state: usual + "\nbr-iot down 10.1.0.1/24", set: netif.Settings{LAN: []string{"br-lan", "br-iot"}}, lan: "br-lan", wan: "wan0", why: "br-iot is not served: it is not up"},
		{name: "one of two named has no address", state: usual + "\nbr-iot", set: netif.Settings{LAN: []string{"br-lan", "br-iot"}}, lan: "br-lan", wan: "wan0", why: "br-iot is not served: it has no address yet"},
		{name: "named, with IPv6 alone", state: usual + "\nbr-iot fe80::2/64!link 2001:db8:2::1/64", set: netif.Settings{LAN: []string{"br-lan", "br-iot"}}, lan: "br-lan br-iot", wan: "wan0", why: "br-iot is a LAN: the configuration names it; it has no IPv4 address yet and is served by IPv6 alone"},
		{name: "the only one, with a link-local address", state: "wan0 203.0.113.5/24\nbr-iot fe80::2/64!link\ndefault wan0", set: netif.Settings{LAN: []string{"br-iot"}}, lan: "br-iot", wan: "wan0"},
		{name: "named, IPv6 not usable yet", state: usual + "\nbr-iot fe80::2/64!link!tentative", set: netif.Settings{LAN: []string{"br-lan", "br-iot"}}, lan: "br-lan", wan: "wan0", why: "br-iot is not served: it has no address yet"},
		{name: "IPv6 alone is not detected", state: usual + "\nbr-iot fe80::2/64!link 2001:db8:2::1/64", lan: "br-lan", wan: "wan0"},
		{name: "A9/public IPv4 beside IPv6", state: usual + "\nlan7 198.51.100.1/24 fe80::2/64!link", set: netif.Settings{LAN: []string{"br-lan", "lan7"}}, lan: "br-lan", wan: "wan0", err: netif.ErrLANPublic},
		{name: "no cable on the LAN yet", state: "wan0 203.0.113.5/24\ndefault wan0\nbr-lan bridge nocarrier 192.168.1.1/24", lan: "br-lan", wan: "wan0"},

		{name: "WAN not up yet", state: "wan0 down\nbr-lan bridge 192.168.1.1/24", lan: "br-lan", wan: "", why: "there is no WAN yet"},
		{name: "WAN named and not there yet", state: "br-lan bridge 192.168.1.1/24", set: netif.Settings{WAN: "ppp0"}, lan: "br-lan", wan: "ppp0", why: "it does not exist yet"},
		{name: "WAN by metric", state: usual + "\nlte0 198.51.100.9/24\ndefault lte0 9", lan: "br-lan", wan: "wan0"},
		{name: "WAN named against the metric", state: usual + "\nlte0 198.51.100.9/24\ndefault lte0 9", set: netif.Settings{WAN: "lte0"}, lan: "br-lan", wan: "lte0"},
		{name: "WAN behind another router", state: "wan0 192.168.0.5/24!dynamic\nbr-lan bridge 192.168.1.1/24\ndefault wan0", lan: "br-lan", wan: "wan0"},
		{name: "default route without interface", state: "br-lan bridge 192.168.1.1/24\ndefault nosuch0", lan: "br-lan", wan: ""},

		{name: "docker0 is passed over", state: usual + "\ndocker0 bridge nocarrier 172.17.0.1/16", lan: "br-lan", wan: "wan0", why: "docker0 is not served: by its name it is a network of containers"},
		{name: "a Docker network is passed over", state: usual + "\nbr-0123456789ab bridge 172.18.0.1/16", lan: "br-lan", wan: "wan0", why: "br-0123456789ab is not served"},
		{name: "a bridge of the owner's is not", state: usual + "\nbr-wohnzimmer0 bridge 172.18.0.1/16", lan: "br-lan br-wohnzimmer0", wan: "wan0"},
		{name: "virtual machines are passed over", state: usual + "\nvirbr0 bridge 192.168.122.1/24", lan: "br-lan", wan: "wan0", why: "virbr0 is not served"},
		{name: "docker0 by name", state: usual + "\ndocker0 bridge 172.17.0.1/16", set: netif.Settings{LAN: []string{"docker0"}}, lan: "docker0", wan: "wan0"},
		{name: "only docker0", state: "wan0 203.0.113.5/24\ndocker0 bridge 172.17.0.1/16\ndefault wan0", lan: "", wan: "wan0", err: netif.ErrNoLAN},
		{name: "tunnels are passed over", state: usual + "\nwg0 wireguard 10.8.0.1/24\ntun0 ppp 10.9.0.1/24", lan: "br-lan", wan: "wan0", why: "wg0 is not served: it is a tunnel"},
		{name: "a tunnel by name", state: usual + "\nwg0 wireguard 10.8.0.1/24", set: netif.Settings{LAN: []string{"wg0"}}, lan: "wg0", wan: "wan0"},
		{name: "a port with an address of its own", state: usual + "\nlan1 in=br-lan 192.168.3.1/24", lan: "br-lan", wan: "wan0", why: "lan1 is not served: it is a port of br-lan"},
		{name: "a member of a VRF", state: usual + "\nvrf-home vrf\nlan1 in=vrf-home 192.168.3.1/24", lan: "br-lan lan1", wan: "wan0"},
		{name: "a second uplink with a private address", state: usual + "\nlte0 192.168.8.2/24\ndefault lte0 9", lan: "br-lan", wan: "wan0", why: "lte0 is not served: it holds a default route"},
		{name: "an IPv6 uplink with a private address", state: usual + "\nlte0 192.168.8.2/24\ndefault6 lte0", set: netif.Settings{WAN6: "wan0"}, lan: "br-lan", wan: "wan0", why: "lte0 is not served: it holds a default route"},
		{name: "the real uplink under a VPN", state: "eth0 uplink 192.168.0.5/24\nwg0 wireguard 10.8.0.2/24\nbr-lan bridge 192.168.1.1/24\ndefault wg0", lan: "br-lan", wan: "wg0", why: "eth0 is not served: the default route through 10.99.0.1 leads to the Internet by it"},
		{name: "the WAN lost its route: address learned", state: "eth0 192.168.0.5/24!dynamic\nbr-lan bridge 192.168.1.1/24", lan: "br-lan", wan: "", why: "eth0 is not served: its address was learned"},
		{name: "the WAN lost its route: remembered", state: "eth0 192.168.0.5/24\nbr-lan bridge 192.168.1.1/24", set: netif.Settings{FormerUplinks: []string{"eth0"}}, lan: "br-lan", wan: "", why: "eth0 is not served: it led to the Internet before"},
		{name: "a learned address beside a WAN", state: usual + "\nlan7 10.3.0.9/24!dynamic", lan: "br-lan", wan: "wan0", why: "lan7 is not served: its address was learned"},
		{name: "a learned address beside one of its own", state: usual + "\nlan7 10.3.0.9/24!dynamic 10.4.0.1/24", lan: "br-lan lan7", wan: "wan0"},
		{name: "a second uplink by a table of its own", state: usual + "\nlte0 uplink=100 192.168.8.100/24", lan: "br-lan", wan: "wan0", why: "lte0 is not served: the default route through 10.99.0.1 in table 100 leads to the Internet by it"},
		{name: "named, with a warning", state: usual + "\nlte0 uplink=100 192.168.8.100/24", set: netif.Settings{LAN: []string{"lte0"}}, lan: "lte0", wan: "wan0", warn: "lte0 is served because lan.interfaces names it, but the default route through 10.99.0.1 in table 100"},
		{name: "overlap of two LANs", state: usual + "\nlan7 192.168.0.1/16", lan: "br-lan lan7", wan: "wan0", warn: "br-lan (192.168.1.0/24) and lan7 (192.168.0.0/16) use overlapping networks"},
		{name: "overlap with an uplink", state: usual + "\nlte0 uplink=100 192.168.1.100/24", lan: "br-lan", wan: "wan0", warn: "br-lan (192.168.1.0/24) and lte0 (192.168.1.0/24) use overlapping networks"},
		{name: "overlap with a tunnel", state: usual + "\nwg0 wireguard 192.168.1.200/25", lan: "br-lan", wan: "wan0", warn: "and wg0 (192.168.1.128/25) use overlapping networks"},
		{name: "overlap of IPv6", state: usual + "\nlan7 10.3.0.1/24 2001:db8::1/32", lan: "br-lan lan7", wan: "wan0", warn: "br-lan (2001:db8:1::/64) and lan7 (2001:db8::/32)"},
		{name: "no overlap: link-local networks, a tunnel's own address, an interface that is down", state: usual + "\nlan7 10.3.0.1/24 fe80::7/64!link\nwg0 wireguard 192.168.1.200/32\nlan8 down 192.168.1.1/24", lan: "br-lan lan7", wan: "wan0"},
		{name: "a former WAN by name", state: usual, set: netif.Settings{LAN: []string{"br-lan"}, FormerUplinks: []string{"br-lan"}}, lan: "br-lan", wan: "wan0"},
		{name: "the bridge that has the WAN as port", state: "br0 bridge 192.168.1.1/24\nwan0 in=br0 203.0.113.5/24\nlan1 192.168.2.1/24\ndefault wan0", lan: "lan1", wan: "wan0", err: netif.ErrUnusable, why: "br0 is not served: the WAN wan0 is one of its ports"},
		{name: "carrier-grade addresses are no LAN", state: usual + "\ntailscale0 100.70.1.1/32", lan: "br-lan", wan: "wan0"},
		{name: "unless named", state: usual + "\nlan7 100.70.1.1/24", set: netif.Settings{LAN: []string{"lan7"}}, lan: "lan7", wan: "wan0"},
		{name: "link-local, named", state: usual + "\nlan7 169.254.1.1/16!link", set: netif.Settings{LAN: []string{"lan7"}}, lan: "lan7", wan: "wan0"},
		{name: "nothing private", state: "wan0 203.0.113.5/24\nlan0 198.51.100.1/24\ndefault wan0", lan: "", wan: "wan0", err: netif.ErrNoLAN},
		{name: "nothing at all", state: "", lan: "", wan: "", err: netif.ErrNoLAN},
		{name: "named but nowhere", state: "wan0 203.0.113.5/24\ndefault wan0", set: netif.Settings{LAN: []string{"br-lan"}}, lan: "", wan: "wan0", err: netif.ErrNoLAN},

		{name: "A9/LAN is WAN, both named", state: usual, set: netif.Settings{LAN: []string{"wan0"}, WAN: "wan0"}, lan: "", wan: "", err: netif.ErrLANIsWAN},
		{name: "A9/one of two LANs is WAN", state: usual, set: netif.Settings{LAN: []string{"br-lan", "wan0"}, WAN: "wan0"}, lan: "br-lan", wan: "", err: netif.ErrLANIsWAN},
		{name: "A9/LAN is WAN by route", state: usual, set: netif.Settings{LAN: []string{"wan0"}}, lan: "", wan: "", err: netif.ErrLANDefaultRoute},
		{name: "A9/LAN is WAN in both families", state: usual + "\ndefault6 wan0", set: netif.Settings{LAN: []string{"wan0"}}, lan: "", wan: "", err: netif.ErrLANDefaultRoute},
		{name: "A9/LAN is IPv6 WAN", state: usual, set: netif.Settings{LAN: []string{"br-lan"}, WAN6: "br-lan"}, lan: "", wan: "wan0", err: netif.ErrLANIsWAN},
		{name: "A9/swapped", state: usual, set: netif.Settings{LAN: []string{"wan0"}, WAN: "br-lan"}, lan: "", wan: "br-lan", err: netif.ErrLANDefaultRoute},
		{name: "A9/LAN holds a worse default route", state: usual + "\ndefault br-lan 9", set: netif.Settings{LAN: []string{"br-lan"}}, lan: "", wan: "wan0", err: netif.ErrLANDefaultRoute},
		{name: "A9/LAN holds the IPv6 default route", state: usual + "\ndefault6 br-lan", set: netif.Settings{LAN: []string{"br-lan"}}, lan: "", wan: "wan0", err: netif.ErrLANDefaultRoute},
		{name: "A9/LAN holds a default route and is down", state: "wan0 203.0.113.5/24\nbr-lan down 192.168.1.1/24\ndefault wan0\ndefault br-lan 9", set: netif.Settings{LAN: []string{"br-lan"}}, lan: "", wan: "wan0", err: netif.ErrLANDefaultRoute},
		{name: "A9/LAN is public", state: usual + "\nlan7 198.51.100.1/24", set: netif.Settings{LAN: []string{"br-lan", "lan7"}}, lan: "br-lan", wan: "wan0", err: netif.ErrLANPublic},
		{name: "A9/LAN is public and private", state: usual + "\nlan7 198.51.100.1/24 10.5.0.1/24", set: netif.Settings{LAN: []string{"lan7"}}, lan: "lan7", wan: "wan0", why: "lan7 also has the address 198.51.100.1/24: hosts of that network are not served"},
		{name: "A9/the WAN is a port of the LAN", state: "br-lan bridge 192.168.1.1/24\nwan0 in=br-lan 203.0.113.5/24\ndefault wan0", set: netif.Settings{LAN: []string{"br-lan"}}, lan: "", wan: "wan0", err: netif.ErrLANIsWAN},
		{name: "A9/LAN is a port", state: usual, set: netif.Settings{LAN: []string{"lan0"}}, lan: "", wan: "wan0", err: netif.ErrUnusable},
		{name: "A9/LAN is the loopback", state: usual, set: netif.Settings{LAN: []string{"lo"}}, lan: "", wan: "wan0", err: netif.ErrUnusable},
		{name: "A9/WAN is the loopback", state: usual, set: netif.Settings{WAN: "lo"}, lan: "br-lan", wan: "", err: netif.ErrUnusable},
		{name: "A9/detected LAN gets a default route", state: usual + "\ndefault br-lan 9", lan: "", wan: "wan0", err: netif.ErrNoLAN, why: "br-lan is not served: it holds a default route"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := netif.Choose(home(t, tc.state), tc.set)
			if names(got) != tc.lan {
				t.Errorf("LAN %q, want %q", names(got), tc.lan)
			}
			if got.WAN.Name != tc.wan {
				t.Errorf("WAN %q, want %q", got.WAN.Name, tc.wan)
			}
			if !errors.Is(err, tc.err) || tc.err == nil && err != nil {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			if err != nil {
				checkProblems(t, err)
			}
			if n := len(got.Warn); n > 1 || n == 1 && tc.warn == "" || !strings.Contains(strings.Join(got.Warn, "\n"), tc.warn) {
				t.Errorf("warnings %q, want one with %q", got.Warn, tc.warn)
			}
			if !strings.Contains(strings.Join(got.Why, "\n"), tc.why) {
				t.Errorf("no sentence has %q:\n%s", tc.why, strings.Join(got.Why, "\n"))
			}
		})
	}
}

// checkProblems wants sentences with a remedy, one for an interface.
func checkProblems(t *testing.T, err error) {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is no list", err)
	}
	seen := map[string]bool{}
	for _, e := range joined.Unwrap() {
		var p *netif.Problem
		if !errors.As(e, &p) {
			t.Fatalf("%T is no Problem", e)
		}
		if seen[p.Name] {
			t.Errorf("%s is complained about twice: %v", p.Name, err)
		}
		seen[p.Name] = true
		if !strings.Contains(p.Detail, p.Name) || !strings.ContainsAny(p.Detail, ":;") || p.Kind == nil || p.Error() != p.Detail {
			t.Errorf("not a sentence with cause and remedy: %+v", p)
		}
	}
}

func TestChooseWAN(t *testing.T) {
	t.Parallel()
	const lan = "\nbr-lan bridge 192.168.1.1/24\n"
	for _, tc := range []struct {
		name     string
		state    string
		set      netif.Settings
		up       bool
		external string // "" for none
		private  bool
		refused  bool
		err      error
		why      string
	}{
		{name: "public", state: "wan0 8.8.4.4/24\ndefault wan0", up: true, external: "8.8.4.4"},
		{name: "documentation counts as public", state: "wan0 203.0.113.5/24\ndefault wan0", up: true, external: "203.0.113.5"},
		{name: "PPP", state: "wan0 ppp 198.51.100.7/32!peer=198.51.100.1/32\ndefault wan0", up: true, external: "198.51.100.7"},
		{name: "K10/private", state: "wan0 192.168.0.5/24\ndefault wan0", up: true, external: "192.168.0.5", private: true, refused: true, why: "no mapping is granted"},
		{name: "K10/carrier-grade NAT", state: "wan0 100.64.9.9/10\ndefault wan0", up: true, external: "100.64.9.9", private: true, refused: true},
		{name: "K10/DS-Lite", state: "wan0 ppp 192.0.0.2/29\ndefault wan0", up: true, external: "192.0.0.2", private: true, refused: true},
		{name: "K10/link-local", state: "wan0 169.254.3.4/16!link\ndefault wan0", up: true, external: "169.254.3.4", private: true, refused: true},
		{name: "K10/private and allowed", state: "wan0 10.1.2.3/24\ndefault wan0", set: netif.Settings{AllowPrivate: true}, up: true, external: "10.1.2.3", private: true, why: "the configuration allows that"},
		{name: "K10/private, and the owner knows the public one", state: "wan0 10.1.2.3/24\ndefault wan0", set: netif.Settings{ExternalIP: netip.MustParseAddr("198.51.100.77")}, up: true, external: "198.51.100.77", why: "as configured; the one of wan0 is 10.1.2.3"},
		{name: "override that is private", state: "wan0 203.0.113.5/24\ndefault wan0", set: netif.Settings{ExternalIP: netip.MustParseAddr("10.9.9.9")}, up: true, external: "10.9.9.9", private: true, refused: true},
		{name: "override, IPv4-mapped", state: "wan0 203.0.113.5/24\ndefault wan0", set: netif.Settings{ExternalIP: netip.MustParseAddr("::ffff:198.51.100.77")}, up: true, external: "198.51.100.77"},
		{name: "override that is no address of a host", state: "wan0 203.0.113.5/24\ndefault wan0", set: netif.Settings{ExternalIP: netip.MustParseAddr("224.0.0.1")}, up: true, external: "203.0.113.5", err: netif.ErrExternalIP},
		{name: "override that is IPv6", state: "wan0 203.0.113.5/24\ndefault wan0", set: netif.Settings{ExternalIP: netip.MustParseAddr("2001:db8::1")}, up: true, external: "203.0.113.5", err: netif.ErrExternalIP},
		{name: "override while the WAN has no address", state: "wan0\ndefault wan0", set: netif.Settings{ExternalIP: netip.MustParseAddr("198.51.100.77")}, why: "no external address to report"},
		{name: "no address", state: "wan0 fe80::5/64!link\ndefault wan0"},
		{name: "no carrier", state: "wan0 nocarrier 203.0.113.5/24\ndefault wan0", external: "203.0.113.5"},
		{name: "down", state: "wan0 down 203.0.113.5/24", set: netif.Settings{WAN: "wan0"}, external: "203.0.113.5"},
		{name: "public before private", state: "wan0 192.168.100.2/24 203.0.113.5/24\ndefault wan0", up: true, external: "203.0.113.5"},
		{name: "private before link-local", state: "wan0 169.254.1.1/16!link 10.0.0.2/24\ndefault wan0", up: true, external: "10.0.0.2", private: true, refused: true},
		{name: "first of two", state: "wan0 203.0.113.5/24 203.0.113.6/24\ndefault wan0", up: true, external: "203.0.113.5"},
		{name: "the route's source", state: "wan0 203.0.113.5/24 203.0.113.6/24\ndefault wan0 src=203.0.113.6", up: true, external: "203.0.113.6"},
		{name: "the route's source is not there", state: "wan0 203.0.113.5/24\ndefault wan0 src=203.0.113.6", up: true, external: "203.0.113.5"},
		{name: "not the deprecated", state: "wan0 203.0.113.5/24!deprecated 203.0.113.6/24\ndefault wan0", up: true, external: "203.0.113.6"},
		{name: "same network on both sides", state: "wan0 192.168.1.50/24\ndefault wan0", up: true, external: "192.168.1.50", private: true, refused: true, why: "use overlapping networks"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := netif.Choose(home(t, tc.state+lan), tc.set)
			if !errors.Is(err, tc.err) || tc.err == nil && err != nil {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			var external netip.Addr
			if tc.external != "" {
				external = netip.MustParseAddr(tc.external)
			}
			w := got.WAN
			if w.Name != "wan0" || w.Up != tc.up || w.External != external || w.Private != tc.private || w.Refused != tc.refused {
				t.Errorf("%+v", w)
			}
			if names(got) != "br-lan" {
				t.Errorf("LAN %q", names(got))
			}
			if all := strings.Join(append(got.Why, got.Warn...), "\n"); !strings.Contains(all, tc.why) {
				t.Errorf("no sentence has %q:\n%s", tc.why, all)
			}
		})
	}
}

func TestChooseWAN6(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		state string
		set   netif.Settings
		want  string
		up    bool
	}{
		{"none", usual, netif.Settings{}, "", false},
		{"by route", usual + "\nsix0 2001:db8:9::2/64\ndefault6 six0", netif.Settings{}, "six0", true},
		{"by name", usual + "\nsix0 2001:db8:9::2/64", netif.Settings{WAN6: "six0"}, "six0", true},
		{"by name, not there", usual, netif.Settings{WAN6: "six0"}, "six0", false},
		{"link-local with the route", usual + "\nsix0 fe80::2/64!link\ndefault6 six0", netif.Settings{}, "six0", true},
		{"only link-local", usual + "\nsix0 fe80::2/64!link", netif.Settings{WAN6: "six0"}, "six0", false},
		{"tentative", usual + "\nsix0 2001:db8:9::2/64!tentative\ndefault6 six0", netif.Settings{}, "six0", false},
		{"no carrier", usual + "\nsix0 nocarrier 2001:db8:9::2/64\ndefault6 six0", netif.Settings{}, "six0", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := netif.Choose(home(t, tc.state), tc.set)
			if err != nil || got.WAN6.Name != tc.want || got.WAN6.Up != tc.up {
				t.Errorf("%+v, %v", got.WAN6, err)
			}
		})
	}
}

// TestNoIPv6: where it is switched off no LAN has any of it, and there is no uplink; what leads
// outside by IPv6 is no LAN all the same, and a LAN of IPv6 alone is not served.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	state := home(t, usual+"\nsix0 192.168.8.2/24 2001:db8:9::2/64\nlab0 2001:db8:7::1/64\ndefault6 six0")
	set := netif.Settings{LAN: []string{"br-lan", "lab0"}, ExtraPrefixes: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("2001:db8:5::/48")}}
	with, err := netif.Choose(state, set)
	if err != nil || with.WAN6.Name != "six0" || len(with.LAN) != 2 || len(with.LAN[0].IPv6()) == 0 {
		t.Fatalf("with IPv6: %+v, %v", with, err)
	}
	set.NoIPv6 = true
	got, err := netif.Choose(state, set)
	if err != nil || got.WAN6.Name != "" || got.WAN6.Up || len(got.LAN) != 1 || len(got.LAN[0].IPv6()) != 0 || len(got.LAN[0].Addrs) == 0 {
		t.Fatalf("without: %+v, %v", got, err)
	}
	for _, p := range append(got.LAN[0].Prefixes, got.LAN[0].Direct...) {
		if p.Addr().Is6() {
			t.Errorf("a host of %s counts", p)
		}
	}
	if !got.LAN[0].OnLink(netip.MustParseAddr("192.168.7.9")) {
		t.Error("a routed network of IPv4 is gone as well")
	}
	if !slices.ContainsFunc(got.Why, func(s string) bool { return strings.HasPrefix(s, "lab0 is not served") }) {
		t.Errorf("why: %q", got.Why)
	}
	detected, err := netif.Choose(state, netif.Settings{NoIPv6: true})
	if err != nil || len(detected.LAN) != 1 || detected.LAN[0].Name != "br-lan" {
		t.Errorf("what leads outside by IPv6 is a LAN: %+v, %v", detected.LAN, err)
	}
}

func TestChoosePrefixes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		addrs string
		extra []netip.Prefix
		want  []netip.Prefix
		own   []netip.Addr
	}{
		{"one", "192.168.1.1/24", nil, prefixes("192.168.1.0/24"), addrs("192.168.1.1")},
		{"two networks", "192.168.1.1/24 10.0.0.1/8", nil, prefixes("192.168.1.0/24", "10.0.0.0/8"), addrs("192.168.1.1", "10.0.0.1")},
		{"two addresses of one", "192.168.1.1/24 192.168.1.2/24", nil, prefixes("192.168.1.0/24"), addrs("192.168.1.1", "192.168.1.2")},
		{"extra", "192.168.1.1/24", prefixes("192.168.7.0/24", "2001:db8:7::/48", "192.168.1.0/24"), prefixes("192.168.1.0/24", "192.168.7.0/24", "2001:db8:7::/48"), addrs("192.168.1.1")},
		{"extra, not masked", "192.168.1.1/24", prefixes("192.168.7.9/24"), prefixes("192.168.1.0/24", "192.168.7.0/24"), addrs("192.168.1.1")},
		{"not the public one", "192.168.1.1/24 198.51.100.9/28", nil, prefixes("192.168.1.0/24"), addrs("192.168.1.1", "198.51.100.9")},
		{"IPv6 as it comes", "192.168.1.1/24 fe80::1/64!link fd00::1/64 2001:db8:1::1/64", nil, prefixes("192.168.1.0/24", "fe80::/64", "fd00::/64", "2001:db8:1::/64"), addrs("192.168.1.1", "fe80::1", "fd00::1", "2001:db8:1::1")},
		{"not the tentative", "192.168.1.1/24 2001:db8:1::1/64!tentative", nil, prefixes("192.168.1.0/24"), addrs("192.168.1.1")},
		{"a peer", "192.168.1.1/32!peer=192.168.1.2/32", nil, prefixes("192.168.1.2/32"), addrs("192.168.1.1")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			state := home(t, "wan0 203.0.113.5/24\ndefault wan0\nlan0 "+tc.addrs)
			for _, set := range []netif.Settings{{ExtraPrefixes: tc.extra}, {ExtraPrefixes: tc.extra, LAN: []string{"lan0"}}} {
				got, err := netif.Choose(state, set)
				if err != nil || len(got.LAN) != 1 {
					t.Fatalf("%+v, %v", got, err)
				}
				if diff := cmp.Diff(tc.want, got.LAN[0].Prefixes, compareAddrs); diff != "" {
					t.Errorf("prefixes (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tc.own, got.LAN[0].Addrs, compareAddrs); diff != "" {
					t.Errorf("addresses (-want +got):\n%s", diff)
				}
				if routed := netip.MustParseAddr("192.168.7.9"); got.LAN[0].HasMAC(routed) || tc.extra != nil != got.LAN[0].OnLink(routed) {
					t.Errorf("%s has a MAC: %v, is on the link: %v", routed, got.LAN[0].HasMAC(routed), got.LAN[0].OnLink(routed))
				}
				host := tc.want[0].Addr()
				for range 9 {
					if tc.want[0].Contains(host.Next()) {
						host = host.Next()
					}
				}
				if !got.LAN[0].HasMAC(host) || got.LAN[0].HasMAC(got.LAN[0].Addr) {
					t.Errorf("%s has no MAC, or the gateway is its own neighbour", host)
				}
				if got.LAN[0].Addr != netip.MustParseAddr("192.168.1.1") {
					t.Errorf("address %s", got.LAN[0].Addr)
				}
			}
		})
	}
}

// A6: an extra prefix must not undo the on-link rule.
func TestChooseExtraPrefixTooWide(t *testing.T) {
	t.Parallel()
	for _, p := range append(prefixes("0.0.0.0/0", "0.0.0.0/1", "192.0.0.0/7", "203.0.113.0/24", "203.0.0.0/8", "::/0", "2000::/3",
		"::ffff:192.168.0.0/112"), netip.Prefix{}) {
		t.Run("A6/"+p.String(), func(t *testing.T) {
			t.Parallel()
			for _, lan := range [][]string{nil, {"br-lan"}} {
				got, err := netif.Choose(home(t, usual), netif.Settings{LAN: lan, ExtraPrefixes: append(prefixes("10.0.0.0/8"), p)})
				if !errors.Is(err, netif.ErrExtraPrefix) {
					t.Errorf("error %v", err)
				}
				want := prefixes("192.168.1.0/24", "fe80::/64", "2001:db8:1::/64", "10.0.0.0/8")
				if len(got.LAN) != 1 || !slices.Equal(got.LAN[0].Prefixes, want) {
					t.Errorf("prefixes %v", got.LAN)
				}
			}
		})
	}
}

// The same State gives the same Roles, and is not changed.
func TestChooseIsPure(t *testing.T) {
	t.Parallel()
	state := home(t, usual+"\nbr-guest bridge 10.7.0.1/16\ndefault6 wan0")
	set := netif.Settings{ExtraPrefixes: prefixes("10.9.0.0/16")}
	first, err := netif.Choose(state, set)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range first.LAN {
		l.Addrs[0], l.Prefixes[0] = netip.Addr{}, netip.Prefix{}
	}
	first.WAN.Addrs[0] = netip.Addr{}
	if !state.Equal(home(t, usual+"\nbr-guest bridge 10.7.0.1/16\ndefault6 wan0")) {
		t.Fatal("the state shares memory with the roles")
	}
	second, _ := netif.Choose(state, set)
	third, _ := netif.Choose(state, set)
	if diff := cmp.Diff(second, third, compareAddrs); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
}

// The whole way: what the kernel says, read and judged.
func TestChooseFromTheKernel(t *testing.T) {
	t.Parallel()
	s := spaceWithUplinks(t)
	s.veth("lan0", "host0", 5)
	s.Bridge("br-lan", nil, "lan0")
	s.Up("lan0", "host0")
	s.Address("br-lan", "192.168.1.1/24")
	s.addRoute("0.0.0.0/0", "wan0", "203.0.113.1", 0)
	s.addRoute("0.0.0.0/0", "lte0", "198.51.100.1", 20)
	got, err := netif.Choose(s.read(), netif.Settings{})
	if err != nil || names(got) != "br-lan" || got.WAN.Name != "wan0" || got.WAN.External != netip.MustParseAddr("203.0.113.5") {
		t.Errorf("%+v, %v", got, err)
	}
	if got.LAN[0].Index != s.Index("br-lan") || got.WAN.Index != s.Index("wan0") {
		t.Errorf("indexes: %+v", got)
	}
}
