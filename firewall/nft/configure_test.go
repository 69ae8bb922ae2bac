package nft_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// Facts change at the same cost with any number of mappings, and only they do.
func TestConfigure(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	b := open(t, n)
	if err := b.Apply(ctx(t), []portmap.Mapping{homenet.Mapping(1, "udp 5000", homenet.Alice+":6000")}, nil); err != nil {
		t.Fatal(err)
	}
	set := func(name string) string {
		_, elements, _ := strings.Cut(list(t, n, "set", "inet", "portcullis", name), "elements = ")
		elements, _, _ = strings.Cut(elements, "\n\t}")
		// nft sorts by the bytes of the key, which for names is nobody's order.
		list := strings.Split(strings.Trim(strings.Join(strings.Fields(elements), " "), "{} "), ", ")
		slices.Sort(list)
		return strings.Join(list, ", ")
	}
	for name, tc := range map[string]struct {
		change func(*firewall.Facts)
		set    string
		want   string
	}{
		"the same":               {func(*firewall.Facts) {}, "wan_addrs", "203.0.113.5"},
		"no WAN":                 {func(g *firewall.Facts) { g.WAN = nil }, "wan_ifaces", ""},
		"no WAN address":         {func(g *firewall.Facts) { g.WAN[0].Addrs = nil }, "wan_addrs", ""},
		"a WAN that vanished":    {func(g *firewall.Facts) { g.WAN[0].Interface = "ppp0" }, "wan_ifaces", `"ppp0"`},
		"another IPv6 WAN":       {func(g *firewall.Facts) { g.WAN6 = []string{"6in4", "ppp0", "6in4"} }, "wan6_ifaces", `"6in4", "ppp0"`},
		"no IPv6 WAN":            {func(g *firewall.Facts) { g.WAN6 = nil }, "wan6_ifaces", ""},
		"two addresses":          {func(g *firewall.Facts) { g.WAN[0].Addrs = addrs("203.0.113.5", "203.0.113.6", "203.0.113.5") }, "wan_addrs", "203.0.113.5, 203.0.113.6"},
		"IPv6 is not for this":   {func(g *firewall.Facts) { g.WAN[0].Addrs = addrs("2001:db8::1", "203.0.113.5") }, "wan_addrs", "203.0.113.5"},
		"several LANs":           {func(g *firewall.Facts) { g.LAN = []string{"br-lan", "br-guest", "br-lan"} }, "lan_ifaces", `"br-guest", "br-lan"`},
		"no LAN":                 {func(g *firewall.Facts) { g.LAN, g.LANPrefixes = nil, nil }, "lan_prefixes", ""},
		"neighbouring LANs":      {func(g *firewall.Facts) { g.LANPrefixes = prefixes("192.168.1.0/24", "192.168.0.0/24") }, "lan_prefixes", "192.168.0.0/23"},
		"a LAN in another":       {func(g *firewall.Facts) { g.LANPrefixes = prefixes("10.0.0.0/8", "10.9.0.0/16", "10.0.0.0/8") }, "lan_prefixes", "10.0.0.0/8"},
		"LANs apart":             {func(g *firewall.Facts) { g.LANPrefixes = prefixes("192.168.4.0/24", "10.0.0.1/24", "2001:db8::/32") }, "lan_prefixes", "10.0.0.0/24, 192.168.4.0/24"},
		"the end of the numbers": {func(g *firewall.Facts) { g.LANPrefixes = prefixes("240.0.0.0/4") }, "lan_prefixes", "240.0.0.0/4"},
		"all numbers":            {func(g *firewall.Facts) { g.LANPrefixes = prefixes("0.0.0.0/0") }, "lan_prefixes", "0.0.0.0/0"},
		"more than one message of it": {func(g *firewall.Facts) {
			g.LANPrefixes = nil
			for i := range 200 {
				g.LANPrefixes = append(g.LANPrefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 24))
			}
		}, "lan_ifaces", `"lan0"`},
	} {
		g := homenet.Facts()
		tc.change(&g)
		if err := b.Configure(ctx(t), g); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := set(tc.set); got != tc.want {
			t.Errorf("%s: %s holds %s, want %s", name, tc.set, got, tc.want)
		}
		if drift, err := b.Audit(ctx(t), true); err != nil || drift != "" {
			t.Errorf("%s: audit found %q, %v", name, drift, err)
		}
	}
	for name, change := range map[string]func(*firewall.Facts){
		"a name too long": func(g *firewall.Facts) { g.LAN = []string{"an-interface-name"} },
		"no name":         func(g *firewall.Facts) { g.WAN = []firewall.Uplink{{}} },
	} {
		g := homenet.Facts()
		change(&g)
		if err := b.Configure(ctx(t), g); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	do(t, n, "flush ruleset")
	if err := b.Configure(ctx(t), homenet.Facts()); err != nil {
		t.Errorf("after a flush: %v", err)
	}
	if got := world(t, b); !strings.Contains(got, "udp 5000") {
		t.Errorf("after a flush, Configure wrote\n%s", got)
	}
	b.Deafen()
	if err := b.Configure(ctx(t), homenet.Facts()); err != nil {
		t.Errorf("when the answer is lost: %v", err)
	}
}

func addrs(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}
