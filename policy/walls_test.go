package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/policy"
	"portcullis/portmap"
)

// wallCases are requests, and what stops them even where the owner allows
// everything he can.
var wallCases = []struct {
	name string
	req  portmap.Request
	want portmap.Reason
}{
	{"control/A maps its own port", nat(portmap.TCP, 6000, 6000), portmap.NoReason},
	{"control/A opens its own pinhole", pinhole(portmap.UDP, 6000), portmap.NoReason},
	{"control/a point-to-point host has no broadcast address", self(nat(portmap.TCP, 6000, 6000), "192.168.60.9", "ppp-in"), portmap.NoReason},
	{"control/a point-to-point IPv6 host", self(pinhole(portmap.TCP, 6000), "2001:db8:60::1", "ppp-in"), portmap.NoReason},
	{"control/unique local pinhole", self(pinhole(portmap.TCP, 6000), "fd00:1::9", "br-lan"), portmap.NoReason},

	{"A5/guest network is not served", self(nat(portmap.TCP, 6000, 6000), "192.168.70.9", "br-guest"), portmap.OffLink},
	{"A5/LAN2 host names a LAN1 client", from(nat(portmap.TCP, 6000, 6000), "192.168.50.9", "br-iot"), portmap.NotRequester},
	{"A6/source outside the prefix", self(nat(portmap.TCP, 6000, 6000), "10.9.9.9", "br-lan"), portmap.OffLink},
	{"A6/extra prefix", self(nat(portmap.TCP, 6000, 6000), "172.16.9.9", "br-lan"), portmap.NoReason},
	{"A6/extra prefix on another interface", self(nat(portmap.TCP, 6000, 6000), "172.16.9.9", "br-iot"), portmap.OffLink},
	{"A6/E7 LAN1 source arrives on LAN2", self(nat(portmap.TCP, 6000, 6000), "192.168.1.10", "br-iot"), portmap.OffLink},
	{"A6/v6 source outside the prefix", self(pinhole(portmap.TCP, 6000), "2001:db8:2::9", "br-lan"), portmap.OffLink},
	{"A6/arrived by the WAN", self(nat(portmap.TCP, 6000, 6000), "192.168.1.10", "wan0"), portmap.OffLink},
	{"A6/no source at all", func() portmap.Request {
		r := nat(portmap.TCP, 6000, 6000)
		r.Client.Addr, r.Internal = netip.Addr{}, netip.AddrPortFrom(netip.Addr{}, 6000)
		return r
	}(), portmap.OffLink},
	{"A8/v4-mapped source and target", self(nat(portmap.TCP, 6000, 6000), "::ffff:192.168.1.10", "br-lan"), portmap.OffLink},
	{"A8/v4-mapped source", from(nat(portmap.TCP, 6000, 6000), "::ffff:192.168.1.10", "br-lan"), portmap.OffLink},
	{"A8/v4-mapped unspecified target", to(nat(portmap.TCP, 6000, 6000), "::ffff:0.0.0.0"), portmap.NotAHost},
	{"A8/v4-mapped pinhole", to(pinhole(portmap.TCP, 6000), "::ffff:192.168.1.10"), portmap.NotAHost},

	{"B1/Internet host", to(nat(portmap.TCP, 44333, 443), "172.217.165.142"), portmap.NotRequester},
	{"B2/445 of another", to(nat(portmap.TCP, 47669, 445), "192.168.1.20"), portmap.NotRequester},
	{"B2/139 of another", to(nat(portmap.TCP, 47669, 139), "192.168.1.20"), portmap.NotRequester},
	{"B2/445 of itself", nat(portmap.TCP, 47669, 445), portmap.ForbiddenPort},
	{"B2/139 of itself", nat(portmap.TCP, 47669, 139), portmap.ForbiddenPort},

	{"B3/192.168.1.1:22", to(nat(portmap.TCP, 6000, 22), "192.168.1.1"), portmap.GatewayTarget},
	{"B3/192.168.1.1:80", to(nat(portmap.TCP, 6000, 80), "192.168.1.1"), portmap.GatewayTarget},
	{"B3/192.168.1.1:443", to(nat(portmap.TCP, 6000, 443), "192.168.1.1"), portmap.GatewayTarget},
	{"B3/192.168.1.1:53", to(nat(portmap.UDP, 6000, 53), "192.168.1.1"), portmap.GatewayTarget},
	{"B3/127.0.0.1", to(nat(portmap.TCP, 6000, 80), "127.0.0.1"), portmap.GatewayTarget},
	{"B3/127.1.2.3", to(nat(portmap.TCP, 6000, 80), "127.1.2.3"), portmap.GatewayTarget},
	{"B3/gateway on another LAN", to(nat(portmap.TCP, 6000, 80), "192.168.50.1"), portmap.GatewayTarget},
	{"B3/gateway on no LAN", to(nat(portmap.TCP, 6000, 80), "10.99.0.1"), portmap.GatewayTarget},
	{"B3/the gateway asks for itself", self(nat(portmap.TCP, 6000, 6000), "192.168.1.1", "br-lan"), portmap.GatewayTarget},
	{"B3/v6 gateway", to(pinhole(portmap.TCP, 6000), "2001:db8:1::1"), portmap.GatewayTarget},
	{"B3/v6 loopback", to(pinhole(portmap.TCP, 6000), "::1"), portmap.GatewayTarget},
	{"B3/the gateway asks for itself over v6", self(pinhole(portmap.TCP, 6000), "fd00:1::1", "br-lan"), portmap.GatewayTarget},

	{"B4/0.0.0.0", to(nat(portmap.TCP, 6000, 6000), "0.0.0.0"), portmap.NotAHost},
	{"B4/0.1.2.3", to(nat(portmap.TCP, 6000, 6000), "0.1.2.3"), portmap.NotAHost},
	{"B4/255.255.255.255", to(nat(portmap.TCP, 6000, 6000), "255.255.255.255"), portmap.NotAHost},
	{"B4/192.168.1.0", to(nat(portmap.TCP, 6000, 6000), "192.168.1.0"), portmap.NotAHost},
	{"B4/192.168.1.255", to(nat(portmap.TCP, 6000, 6000), "192.168.1.255"), portmap.NotAHost},
	{"B4/broadcast of another LAN", to(nat(portmap.TCP, 6000, 6000), "192.168.50.255"), portmap.NotAHost},
	{"B4/broadcast of an extra prefix", to(nat(portmap.TCP, 6000, 6000), "172.16.9.255"), portmap.NotAHost},
	{"B4/224.0.0.1", to(nat(portmap.TCP, 6000, 6000), "224.0.0.1"), portmap.NotAHost},
	{"B4/239.255.255.250", to(nat(portmap.TCP, 6000, 6000), "239.255.255.250"), portmap.NotAHost},
	{"B4/169.254.9.9", to(nat(portmap.TCP, 6000, 6000), "169.254.9.9"), portmap.NotAHost},
	{"B4/240.0.0.1", to(nat(portmap.TCP, 6000, 6000), "240.0.0.1"), portmap.NotAHost},
	{"B4/the WAN address", to(nat(portmap.TCP, 6000, 6000), "203.0.113.5"), portmap.NotAHost},
	{"B4/100.64.0.9", to(nat(portmap.TCP, 6000, 6000), "100.64.0.9"), portmap.NotAHost},
	{"B4/100.127.255.254", to(nat(portmap.TCP, 6000, 6000), "100.127.255.254"), portmap.NotAHost},
	{"B4/100.128.0.9 is somebody's", to(nat(portmap.TCP, 6000, 6000), "100.128.0.9"), portmap.NotRequester},
	{"B4/source is the broadcast address", self(nat(portmap.TCP, 6000, 6000), "192.168.1.255", "br-lan"), portmap.NotAHost},
	{"B4/source is the network address", self(nat(portmap.TCP, 6000, 6000), "192.168.1.0", "br-lan"), portmap.NotAHost},
	{"B4/v6 unspecified", to(pinhole(portmap.TCP, 6000), "::"), portmap.NotAHost},
	{"B4/v6 multicast", to(pinhole(portmap.TCP, 6000), "ff02::1"), portmap.NotAHost},
	{"B4/v6 link-local", to(pinhole(portmap.TCP, 6000), "fe80::10"), portmap.NotAHost},
	{"B4/v6 WAN address", to(pinhole(portmap.TCP, 6000), "2001:db8:ffff::5"), portmap.NotAHost},
	{"B4/v6 subnet-router anycast", self(pinhole(portmap.TCP, 6000), "2001:db8:1::", "br-lan"), portmap.NotAHost},

	{"B5/::ffff:192.168.1.20", to(nat(portmap.TCP, 6000, 6000), "::ffff:192.168.1.20"), portmap.NotAHost},
	{"B5/v6 target of a NAT4 mapping", to(nat(portmap.TCP, 6000, 6000), "2001:db8:1::10"), portmap.NotAHost},
	{"B5/v4 target of a pinhole", to(pinhole(portmap.TCP, 6000), "192.168.1.10"), portmap.NotAHost},
	{"B5/scoped target", to(pinhole(portmap.TCP, 6000), "2001:db8:1::10%br-lan"), portmap.NotAHost},
	{"B5/no target", func() portmap.Request {
		r := nat(portmap.TCP, 6000, 6000)
		r.Internal = netip.AddrPortFrom(netip.Addr{}, 6000)
		return r
	}(), portmap.NotAHost},
	{"B5/unknown kind", func() portmap.Request { r := nat(portmap.TCP, 6000, 6000); r.Kind = 9; return r }(), portmap.NotAHost},

	{"B6/internal port 0", nat(portmap.TCP, 6000, 0), portmap.BadPort},
	{"B6/both ports 0", nat(portmap.TCP, 0, 0), portmap.BadPort},
	{"B6/external port 0 means any", nat(portmap.TCP, 0, 6000), portmap.NoReason},
	{"J3/pinhole port 0", pinhole(portmap.TCP, 0), portmap.BadPort},
	{"H5/NAT-PMP port 0", nat(portmap.UDP, 0, 0), portmap.BadPort},

	{"B7/ICMP", nat(1, 6000, 6000), portmap.BadTransport},
	{"B7/SCTP", nat(132, 6000, 6000), portmap.BadTransport},
	{"B7/UDPLITE", nat(136, 6000, 6000), portmap.BadTransport},
	{"B7/none", nat(0, 6000, 6000), portmap.BadTransport},
	{"I13/41", nat(41, 6000, 6000), portmap.BadTransport},
	{"I13/47", nat(47, 6000, 6000), portmap.BadTransport},
	{"I13/255", nat(255, 6000, 6000), portmap.BadTransport},
	{"I12/whole host", nat(0, 0, 0), portmap.BadTransport},

	{"B12/6to4", to(pinhole(portmap.TCP, 6000), "2002:c0a8:114::"), portmap.NotRequester},
	{"B12/NAT64", to(pinhole(portmap.TCP, 6000), "64:ff9b::c0a8:114"), portmap.NotRequester},
	{"B12/v4-compatible", to(pinhole(portmap.TCP, 6000), "::192.168.1.20"), portmap.NotRequester},
	{"J1/another host", to(pinhole(portmap.TCP, 6000), "2001:db8:1::20"), portmap.NotRequester},
	{"J6/pinhole below 1024", pinhole(portmap.TCP, 22), portmap.PrivilegedPort},
	{"J6/pinhole Tier 0", pinhole(portmap.TCP, 445), portmap.ForbiddenPort},

	{"B10/wrong family", only(nat(portmap.TCP, 6000, 6000), "2001:db8::7/128"), portmap.BadRemote},
	{"B10/wrong family of a pinhole", only(pinhole(portmap.TCP, 6000), "198.51.100.7/32"), portmap.BadRemote},
	{"B10/multicast", only(nat(portmap.TCP, 6000, 6000), "224.0.0.1/32"), portmap.BadRemote},
	{"B10/broadcast", only(nat(portmap.TCP, 6000, 6000), "255.255.255.255/32"), portmap.BadRemote},
	{"B10/unspecified", only(nat(portmap.TCP, 6000, 6000), "0.0.0.0/32"), portmap.BadRemote},
	{"B10/v6 unspecified", only(pinhole(portmap.TCP, 6000), "::/128"), portmap.BadRemote},
	{"B10/loopback", only(nat(portmap.TCP, 6000, 6000), "127.0.0.1/32"), portmap.BadRemote},
	{"B10/v6 loopback", only(pinhole(portmap.TCP, 6000), "::1/128"), portmap.BadRemote},
	{"B10/v6 link-local", only(pinhole(portmap.TCP, 6000), "fe80::1/128"), portmap.BadRemote},
	{"B10/v6 multicast", only(pinhole(portmap.TCP, 6000), "ff02::1/128"), portmap.BadRemote},
	{"B10/v4-mapped", only(pinhole(portmap.TCP, 6000), "::ffff:198.51.100.7/128"), portmap.BadRemote},
	{"B10/not masked", only(nat(portmap.TCP, 6000, 6000), "198.51.100.7/24"), portmap.BadRemote},
	{"B10/no prefix", func() portmap.Request {
		r := nat(portmap.TCP, 6000, 6000)
		r.Remotes = []portmap.Remote{{Port: 5}}
		return r
	}(), portmap.BadRemote},
	{"B10/second of two", only(nat(portmap.TCP, 6000, 6000), "198.51.100.7/32", "224.0.0.1/32"), portmap.BadRemote},
	{"B10/a host", only(nat(portmap.TCP, 6000, 6000), "198.51.100.7/32"), portmap.NoReason},
	{"B10/a network", only(nat(portmap.TCP, 6000, 6000), "198.51.100.0/24"), portmap.NoReason},
	{"B10/a private host behind a private WAN", only(nat(portmap.TCP, 6000, 6000), "10.0.0.7/32"), portmap.NoReason},
	{"B10/any host", only(nat(portmap.TCP, 6000, 6000), "0.0.0.0/0"), portmap.NoReason},
	{"B10/a v6 host", only(pinhole(portmap.TCP, 6000), "2001:db8:9::7/128"), portmap.NoReason},
}

// only restricts a request to remote prefixes.
func only(r portmap.Request, list ...string) portmap.Request {
	for _, p := range prefixes(list...) {
		r.Remotes = append(r.Remotes, portmap.Remote{Prefix: p})
	}
	return r
}

func TestWalls(t *testing.T) {
	t.Parallel()
	p := build(t, policy.Config{
		Default: portmap.Allow, MappingsPerClient: 32, Mappings: 1024, GrantsPerSecond: 1,
		UniqueLocal: true, // the owner's to say, so that no wall is in the way
	})
	for _, tt := range wallCases {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Decide(tt.req, facts())
			check(t, d, tt.want)
			isWall := tt.want != portmap.NoReason && tt.want != portmap.PrivilegedPort
			if d.Wall != isWall {
				t.Errorf("wall %v, want %v", d.Wall, isWall)
			}
			w, hit := policy.Walls(tt.req, network())
			if hit != isWall {
				t.Errorf("Walls hit %v, want %v", hit, isWall)
			}
			if diff := cmp.Diff(w, d); hit && diff != "" {
				t.Errorf("Walls (-) and Decide (+):\n%s", diff)
			}
		})
	}
}

// No rule, no renewal and no owner's hand passes a wall.
func TestNoRulePassesAWall(t *testing.T) {
	t.Parallel()
	p := shipped(t, policy.Rule{
		Name: "everything", Action: portmap.Allow,
		Internal: ports(span(1, 65535), span(6000, 6000), span(400, 499), span(100, 199), span(1, 99)),
	})
	f := facts()
	f.Renewal = true
	for _, tt := range wallCases {
		if tt.want == portmap.NoReason || tt.want == portmap.PrivilegedPort {
			continue
		}
		for _, via := range []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP, portmap.ViaOwner} {
			r := tt.req
			r.Client.Via = via
			if d := p.Decide(r, f); d.Reason != tt.want || !d.Wall || d.Rule != "" {
				t.Errorf("%s via %s: %+v, want %s", tt.name, via, d, tt.want)
			}
		}
	}
}

// In a mapped /96, a v4-mapped source would look on-link, and a 6to4 or Teredo
// prefix on the LAN would make such a host its own target.
func TestOddPrefixesOnTheLAN(t *testing.T) {
	t.Parallel()
	f := facts()
	f.View.LAN["br-odd"] = portmap.LAN{Prefixes: prefixes("::ffff:0:0/96", "2002:c0a8:114::/64", "2001::/64",
		"64:ff9b::/96", "::/96", "fec0::/64", "2001:db8:61::/127", "100.64.0.0/16", "10.1.0.0/16", "10.0.0.0/8", "10.2.0.0/16"),
		Addrs: addrs("10.1.0.1")} // not in View.Local: the two lists may be of different moments
	f.View.WANs[0].External = netip.MustParseAddr("10.1.0.5") // as wan.external_ip may say, on no interface
	p := shipped(t)
	for _, tt := range []struct {
		name, addr string
		want       portmap.Reason
	}{
		{"A8/v4-mapped", "::ffff:192.168.1.10", portmap.OffLink},
		{"B12/6to4", "2002:c0a8:114::9", portmap.NotAHost},
		{"B12/Teredo", "2001::9", portmap.NotAHost},
		{"B12/NAT64", "64:ff9b::c0a8:114", portmap.NotAHost},
		{"B12/v4-compatible", "::192.168.1.20", portmap.NotAHost},
		{"B12/site-local", "fec0::9", portmap.NotAHost},
		{"B4/100.64 on the LAN is a host", "100.64.0.9", portmap.NoReason},
		{"B4/inside both prefixes", "10.1.2.3", portmap.NoReason},
		{"B4/broadcast of an inner prefix", "10.1.255.255", portmap.NotAHost},
		{"B4/network of an inner prefix", "10.2.0.0", portmap.NotAHost},
		{"B4/first of two IPv6 hosts", "2001:db8:61::", portmap.NoReason},
		{"B4/the address clients are told", "10.1.0.5", portmap.NotAHost},
		{"B3/the gateway's address on this LAN", "10.1.0.1", portmap.GatewayTarget},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := self(nat(portmap.TCP, 6000, 6000), tt.addr, "br-odd")
			if strings.Contains(tt.addr, ":") {
				r = self(pinhole(portmap.TCP, 6000), tt.addr, "br-odd")
			}
			check(t, p.Decide(r, f), tt.want)
		})
	}
}

// With no view, nobody is on-link.
func TestNoView(t *testing.T) {
	t.Parallel()
	f := facts()
	f.View = nil
	check(t, shipped(t).Decide(nat(portmap.TCP, 6000, 6000), f), portmap.OffLink)
	f.View = &portmap.View{}
	check(t, shipped(t).Decide(nat(portmap.TCP, 6000, 6000), f), portmap.OffLink)
}

// H6: a denied external port means another one, a denied internal port is the
// end, whichever of them was looked at first.
func TestOverExternalPort(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	for _, tt := range []struct {
		name string
		req  portmap.Request
		want portmap.Reason
		over bool
	}{
		{"H6/internal 445", nat(portmap.TCP, 6000, 445), portmap.ForbiddenPort, false},
		{"H6/external 445", nat(portmap.TCP, 445, 6000), portmap.ForbiddenPort, true},
		{"H6/both 445", nat(portmap.TCP, 445, 445), portmap.ForbiddenPort, false},
		{"H6/external 80", nat(portmap.TCP, 80, 6000), portmap.PrivilegedPort, true},
		{"H6/internal 80", nat(portmap.TCP, 6000, 80), portmap.PrivilegedPort, false},
		{"H6/both 80", nat(portmap.TCP, 80, 80), portmap.PrivilegedPort, false},
		{"H6/pinhole 80", pinhole(portmap.TCP, 80), portmap.PrivilegedPort, false},
		{"H6/pinhole 445", pinhole(portmap.TCP, 445), portmap.ForbiddenPort, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Decide(tt.req, facts())
			check(t, d, tt.want)
			if d.OverExternalPort != tt.over {
				t.Errorf("over the external port: %v, want %v", d.OverExternalPort, tt.over)
			}
		})
	}
}

// A pinhole's external port is its internal one, whatever the request says.
func TestPinholeIgnoresExternalPort(t *testing.T) {
	t.Parallel()
	r := pinhole(portmap.TCP, 6000)
	r.ExternalPort = 445
	check(t, shipped(t).Decide(r, facts()), portmap.NoReason)
	if d, hit := policy.Walls(r, network()); hit {
		t.Errorf("Walls: %+v", d)
	}
}
