package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"portcullis/policy"
	"portcullis/portmap"
)

// The network of docs/abuse-cases.md: LAN 192.168.1.0/24 with the gateway .1, host A
// .10 and host B .20, a guest network, the WAN address 203.0.113.5.
var (
	hostA  = netip.MustParseAddr("192.168.1.10")
	hostA6 = netip.MustParseAddr("2001:db8:1::10")
	macA   = portmap.MAC{2, 0, 0, 0, 0, 0x10}
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// network returns the gateway's view; each call a fresh one.
func network() *portmap.View {
	v := &portmap.View{
		WANs: []portmap.WAN{{Name: "wan0", Up: true, External: netip.MustParseAddr("203.0.113.5")}},
		WAN6: "wan0", WAN6Up: true,
		WANAddrs: []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8:ffff::5")},
		Local:    map[netip.Addr]struct{}{},
		LAN: map[string]portmap.LAN{
			"br-lan": {
				Prefixes: prefixes("192.168.1.0/24", "172.16.9.0/24", "2001:db8:1::/64", "fd00:1::/64"),
				Addrs:    addrs("192.168.1.1", "2001:db8:1::1", "fd00:1::1"),
			},
			"br-iot": {
				Prefixes: prefixes("192.168.50.0/24"),
				Addrs:    addrs("192.168.50.1"),
			},
			"ppp-in": {
				Prefixes: prefixes("192.168.60.8/31", "2001:db8:60::/127"),
				Addrs:    addrs("192.168.60.8", "2001:db8:60::"),
			},
		},
	}
	for _, a := range addrs("127.0.0.1", "::1", "192.168.1.1", "192.168.50.1", "192.168.60.8", "10.99.0.1",
		"2001:db8:1::1", "fd00:1::1", "2001:db8:60::", "203.0.113.5", "2001:db8:ffff::5") {
		v.Local[a] = struct{}{}
	}
	return v
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// facts gives quiet facts: nothing mapped yet.
func facts() portmap.Facts { return portmap.Facts{Now: now, View: network()} }

// nat is A's wish for a port of its own.
func nat(t portmap.Transport, ext, in uint16) portmap.Request {
	return portmap.Request{
		Client:       portmap.Client{Addr: hostA, MAC: macA, Interface: "br-lan", Name: "console", Via: portmap.ViaUPnP},
		Transport:    t,
		Internal:     netip.AddrPortFrom(hostA, in),
		ExternalPort: ext,
	}
}

// pinhole is A's wish for an IPv6 pinhole.
func pinhole(t portmap.Transport, port uint16) portmap.Request {
	r := nat(t, port, port)
	r.Kind = portmap.Pinhole6
	r.Client.Addr = hostA6
	r.Internal = netip.AddrPortFrom(hostA6, port)
	return r
}

// to points a request at another target.
func to(r portmap.Request, target string) portmap.Request {
	r.Internal = netip.AddrPortFrom(netip.MustParseAddr(target), r.Internal.Port())
	return r
}

// from gives a request another source, by an interface.
func from(r portmap.Request, source, iface string) portmap.Request {
	r.Client.Addr = netip.MustParseAddr(source)
	r.Client.Interface = iface
	return r
}

// self makes a request come from a source that wants a port of its own.
func self(r portmap.Request, addr, iface string) portmap.Request {
	return to(from(r, addr, iface), addr)
}

func build(t testing.TB, c policy.Config) *policy.Policy {
	t.Helper()
	p, err := policy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shipped is what an owner who wrote nothing has.
func shipped(t testing.TB, rules ...policy.Rule) *policy.Policy {
	t.Helper()
	return build(t, policy.Config{
		Default: portmap.Allow, Rules: rules, MappingsPerClient: 32, Mappings: 1024, GrantsPerSecond: 1,
	})
}

func one(port uint16) portmap.PortRange                { return portmap.PortRange{First: port, Last: port} }
func span(lo, hi uint16) portmap.PortRange             { return portmap.PortRange{First: lo, Last: hi} }
func ports(p ...portmap.PortRange) []portmap.PortRange { return p }

// check asserts the verdict, and what holds for every decision.
func check(t *testing.T, d portmap.Decision, want portmap.Reason) {
	t.Helper()
	if d.Reason != want {
		t.Errorf("reason %q (%s), want %q", d.Reason, d.Detail, want)
	}
	if allowed := d.Action == portmap.Allow; allowed != (want == portmap.NoReason) {
		t.Errorf("action %s with reason %q", d.Action, want)
	}
	if (d.Detail == "") != (d.Action == portmap.Allow) {
		t.Errorf("action %s with sentence %q", d.Action, d.Detail)
	}
}
