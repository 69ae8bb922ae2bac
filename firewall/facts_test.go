package firewall_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

func TestChainText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]firewall.Chain{
		"inet fw4 forward":                            {Family: "inet", Table: "fw4", Name: "forward"},
		"ip filter my-chain":                          {Family: "ip", Table: "filter", Name: "my-chain"},
		" ip  filter\tmy-chain ":                      {},
		"inet a_table.x a.chain":                      {Family: "inet", Table: "a_table.x", Name: "a.chain"},
		"inet a_table/x.y a.chain":                    {},
		"inet portcullis forward":                     {},
		"":                                            {},
		"inet fw4":                                    {},
		"inet fw4 forward more":                       {},
		"inet fw4 {}":                                 {},
		"inet fw4 " + strings.Repeat("long", 33):      {},
		"inet fw4 " + strings.Repeat("n", 128):        {Family: "inet", Table: "fw4", Name: strings.Repeat("n", 128)},
		"inet fw4 forward\x00":                        {},
		"inet 4fw forward":                            {},
		"inet \"fw4\" forward":                        {},
		"inet fw4 forward; nft flush ruleset":         {},
		"inet\u00a0fw4\u00a0forward":                  {},
		"inet fw4 forw\u00e4rd":                       {},
		"inet " + strings.Repeat("x", 200) + " other": {},
	} {
		var got firewall.Chain
		err := got.UnmarshalText([]byte(text))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
		if (err != nil) != (want == firewall.Chain{}) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%q: an error of %d bytes", text, len(err.Error()))
		}
	}
}

// Each family has its chains; inet is both.
func TestChainFamilies(t *testing.T) {
	t.Parallel()
	for c, want := range map[firewall.Chain][2]bool{
		{"inet", "fw4", "forward"}: {true, true}, {"ip", "filter", "forward"}: {true, false}, {"ip6", "filter", "forward"}: {false, true},
		{"bridge", "fw4", "forward"}: {}, {"INET", "fw4", "forward"}: {}, {"", "fw4", "forward"}: {},
		{"inet", "fw4", ""}: {}, {"inet", "", "forward"}: {}, {"inet", "fw4", "{}"}: {}, {"inet", "fw4", strings.Repeat("long", 33)}: {},
	} {
		for six, err := range []error{c.Check4(), c.Check6()} {
			if (err == nil) != want[six] {
				t.Errorf("%q: %v, want %v", c, err, want)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("%q: an error of %d bytes", c, len(err.Error()))
			}
		}
	}
}

func FuzzChainText(f *testing.F) {
	for _, s := range []string{"inet fw4 forward", "ip filter x", "", "inet \x00 \xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var c, again firewall.Chain
		if c.UnmarshalText([]byte(s)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(c.String())); err != nil || again != c || c.String() != s {
			t.Errorf("%q reads as %q, which reads as %q, %v", s, c, again, err)
		}
	})
}

func TestGatewayValidate(t *testing.T) {
	t.Parallel()
	good := func() firewall.Facts {
		return firewall.Facts{
			WAN: []firewall.Uplink{{Interface: "pppoe-wan"}}, WAN6: []string{"6in4-wan6"}, LAN: []string{"br-lan", "eth0.3"},
			LANPrefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
			AcceptChain: firewall.Chain{Family: "inet", Table: "fw4", Name: "forward"}, AcceptChain6: firewall.Chain{Family: "ip6", Table: "filter", Name: "forward"},
		}
	}
	for name, tc := range map[string]struct {
		change func(*firewall.Facts)
		want   string
	}{
		"good":           {func(*firewall.Facts) {}, ""},
		"empty":          {func(g *firewall.Facts) { *g = firewall.Facts{} }, ""},
		"longest name":   {func(g *firewall.Facts) { g.LAN[0] = "fifteen-letters" }, ""},
		"name too long":  {func(g *firewall.Facts) { g.LAN[0] = "sixteen-letters-" }, "not an interface name"},
		"no name":        {func(g *firewall.Facts) { g.WAN[0].Interface = "" }, "not an interface name"},
		"a slash":        {func(g *firewall.Facts) { g.WAN[0].Interface = "a/b" }, "not an interface name"},
		"K4/a line feed": {func(g *firewall.Facts) { g.LAN[0] = "lan\n0" }, `"lan\n0"`},
		"no prefix":      {func(g *firewall.Facts) { g.LANPrefixes = []netip.Prefix{{}} }, "not a LAN prefix"},
		"no WAN6":        {func(g *firewall.Facts) { g.WAN6, g.AcceptChain6 = nil, firewall.Chain{} }, ""},
		"a WAN6 unnamed": {func(g *firewall.Facts) { g.WAN6 = []string{""} }, "not an interface name"},
		"chain of IPv4":  {func(g *firewall.Facts) { g.AcceptChain6.Family = "ip" }, "not a chain that forwards IPv6"},
		"no chain":       {func(g *firewall.Facts) { g.AcceptChain = firewall.Chain{Name: "forward"} }, "not a chain"},
	} {
		g := good()
		tc.change(&g)
		err := g.Validate()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestForwards(t *testing.T) {
	t.Parallel()
	var f firewall.Forwards
	f.Add(portmap.TCP, 80, 90, "first")
	f.Add(portmap.TCP, 85, 85, "second")
	f.Add(portmap.UDP, 65535, 65535, "last")
	f.Add(portmap.UDP, 9, 8, "nothing")
	if f.Len() != 3 {
		t.Errorf("%d ranges, want 3", f.Len())
	}
	for _, tc := range []struct {
		tr   portmap.Transport
		port uint16
		want string
	}{
		{portmap.TCP, 79, ""},
		{portmap.TCP, 80, "first"},
		{portmap.TCP, 85, "first"},
		{portmap.TCP, 90, "first"},
		{portmap.TCP, 91, ""},
		{portmap.UDP, 80, ""},
		{portmap.UDP, 65535, "last"},
		{portmap.UDP, 8, ""},
	} {
		where, taken := f.Taken(tc.tr, tc.port)
		if where != tc.want || taken != (tc.want != "") {
			t.Errorf("%s %d: %q, %v; want %q", tc.tr, tc.port, where, taken, tc.want)
		}
	}
}

// Every error a person meets says what to do.
func TestErrors(t *testing.T) {
	t.Parallel()
	missing := &firewall.FeatureError{Feature: "masquerading", Module: "nft_masq", Err: unix.ENOENT}
	other := &firewall.ChainError{Chain: firewall.Chain{Family: "ip6", Table: "filter", Name: "forward"}, Setting: "accept_chain6", Detail: "no"}
	chain := &firewall.ChainError{Chain: firewall.Chain{Family: "inet", Table: "fw4", Name: "forward"}, Detail: "there is no such table"}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{firewall.ErrPermission, "CAP_NET_ADMIN"},
		{firewall.ErrUnsupported, "nft_chain_nat"},
		{missing, "load or install the module nft_masq"},
		{other, `firewall.accept_chain6 "ip6 filter forward": no`},
		{chain, `firewall.accept_chain "inet fw4 forward": there is no such table`},
	} {
		if !strings.Contains(tc.err.Error(), tc.want) {
			t.Errorf("%q does not say %q", tc.err, tc.want)
		}
	}
	if !errors.Is(missing, firewall.ErrUnsupported) || !errors.Is(missing, unix.ENOENT) {
		t.Error("a missing feature is not known as one")
	}
}

func TestCounterPlus(t *testing.T) {
	t.Parallel()
	got := firewall.Counter{Packets: 1, Bytes: 10}.Plus(firewall.Counter{Packets: 2, Bytes: 20})
	if want := (firewall.Counter{Packets: 3, Bytes: 30}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
