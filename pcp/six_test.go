package pcp_test

import (
	"net/netip"
	"testing"
	"time"

	"portcullis/internal/datagram"
	"portcullis/policy"
	"portcullis/portmap"
)

// The network of PCP-34: one device with three addresses, and its neighbour.
var (
	gateway6    = netip.MustParseAddr("2001:db8::1")
	gatewayLink = netip.MustParseAddr("fe80::1")
	sixA        = netip.MustParseAddrPort("[2001:db8::50]:40000")
	sixAPrivate = netip.MustParseAddrPort("[2001:db8::beef]:40000")
	sixALink    = netip.MustParseAddrPort("[fe80::50]:40000")
	sixB        = netip.MustParseAddrPort("[2001:db8::60]:40000")
	prefixes6   = []netip.Prefix{netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("fe80::/64")}
	announced6  = netip.MustParseAddrPort("[ff02::1]:5350")
)

// six makes a rig one of IPv6, where the owner lets 443 through.
func six(o *options) {
	o.server.NATPMP = false
	o.policy.Rules = []policy.Rule{{
		Name: "web servers", Action: portmap.Allow,
		External: []portmap.PortRange{{First: 443, Last: 443}}, Internal: []portmap.PortRange{{First: 443, Last: 443}},
	}}
}

// inBubble6 is inBubble for the server of IPv6.
func inBubble6(t *testing.T, edit func(*options), test func(*rig)) {
	t.Helper()
	inBubble(t, func(o *options) {
		six(o)
		if edit != nil {
			edit(o)
		}
	}, func(r *rig) {
		r.world.mu.Lock()
		r.world.view.WAN6, r.world.view.WAN6Up = "wan0", true
		r.world.view.LAN = map[string]portmap.LAN{"lan0": {Prefixes: prefixes6, Addrs: []netip.Addr{gatewayLink, gateway6}}}
		for _, a := range []netip.AddrPort{sixA, sixAPrivate, sixALink} {
			r.world.macs[a.Addr()] = lateHost{portmap.MAC{2, 0, 0, 0, 0, 0x50}, 0}
		}
		r.world.macs[sixB.Addr()] = lateHost{portmap.MAC{2, 0, 0, 0, 0, 0x60}, 0}
		r.world.mu.Unlock()
		r.server.SetAddresses([]netip.Addr{gatewayLink, gateway6}, prefixes6)
		test(r)
	})
}

// open6 asks for TCP port 9000 (2328) of a host, suggesting what follows.
func open6(client netip.AddrPort, nonce, suggested string) string {
	return "02010000 00000e10 " + v4(client.Addr()) + nonce + "06000000 2328" + suggested
}

func opened6(client netip.AddrPort, nonce string) string {
	return "02810000 00000e10 00000e10 00000000 00000000 00000000" + nonce + "06000000 23282328" + v4(client.Addr())
}

// TestPCP6: PCP-34 and its neighbours. A firewall translates nothing: outside is what
// is inside, whatever was suggested.
func TestPCP6(t *testing.T) {
	t.Parallel()
	const whatever = "0000" + zero6
	t.Run("PCP-34", func(t *testing.T) {
		inBubble6(t, nil, func(r *rig) {
			r.asksAt(gatewayLink, sixA,
				"02010000 00000e10 20010db8 00000000 00000000 00000050"+nonceA+"06000000 01bb0000"+zero6,
				"02810000 00000e10 00000e10 00000000 00000000 00000000"+nonceA+"06000000 01bb01bb 20010db8 00000000 00000000 00000050")
		})
	})
	for name, c := range map[string]struct {
		from          netip.AddrPort
		to            netip.Addr
		request, want string
	}{
		"to a global address":     {sixA, gateway6, open6(sixA, nonceA, whatever), opened6(sixA, nonceA)},
		"another port suggested":  {sixA, gatewayLink, open6(sixA, nonceA, "1234"+zero6), opened6(sixA, nonceA)},
		"IPv4 suggested":          {sixA, gatewayLink, open6(sixA, nonceA, "2328"+zero4), opened6(sixA, nonceA)},
		"privacy address":         {sixAPrivate, gatewayLink, open6(sixAPrivate, nonceA, whatever), opened6(sixAPrivate, nonceA)},
		"I8/another port, exact":  {sixA, gatewayLink, open6(sixA, nonceA, "1234"+v4(sixA.Addr())) + preferFailure, error6("0b", open6(sixA, nonceA, "1234"+v4(sixA.Addr()))+preferFailure)},
		"exact":                   {sixA, gatewayLink, open6(sixA, nonceA, "2328"+v4(sixA.Addr())) + preferFailure, opened6(sixA, nonceA) + preferFailure},
		"J1/B12/another host's":   {sixA, gatewayLink, open6(sixB, nonceA, whatever), error6("0c", open6(sixB, nonceA, whatever))},
		"J1/the link-local one's": {sixALink, gatewayLink, open6(sixA, nonceA, whatever), error6("0c", open6(sixA, nonceA, whatever))},
		"link-local":              {sixALink, gatewayLink, open6(sixALink, nonceA, whatever), error6("02", open6(sixALink, nonceA, whatever))},
		"A8/mapped":               {sixA, gatewayLink, open6(hostA, nonceA, whatever), error6("0c", open6(hostA, nonceA, whatever))},
		"H6/SMB":                  {sixA, gatewayLink, "02010000 00000e10" + v4(sixA.Addr()) + nonceA + "06000000 01bd" + whatever, error6("02", "02010000 00000e10"+v4(sixA.Addr())+nonceA+"06000000 01bd"+whatever)},
		"J7/all ports":            {sixA, gatewayLink, "02010000 00000e10" + v4(sixA.Addr()) + nonceA + "06000000 0000" + whatever, error6("09", "02010000 00000e10"+v4(sixA.Addr())+nonceA+"06000000 0000"+whatever)},
		"NAT-PMP":                 {sixA, gatewayLink, "0000", "02800001 00000708 00000e10 00000000 00000000 00000000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble6(t, nil, func(r *rig) { r.asksAt(c.to, c.from, c.request, c.want) })
		})
	}
}

// error6 is the reply to a request that is refused with a code (two hex digits);
// the rest is as it was sent, and errors about the request last half an hour.
func error6(code, request string) string {
	b := octets(request)
	return "028100" + code + "00000708 00000e10 ........ ........ ........" + hexOf(b[24:])
}

// TestPinhole6Life: renewed, restricted, quotas across the addresses of a device,
// deleted with the nonce alone.
func TestPinhole6Life(t *testing.T) {
	t.Parallel()
	inBubble6(t, func(o *options) { o.policy.MappingsPerClient, o.engine.Strict = 2, true }, func(r *rig) {
		const whatever = "0000" + zero6
		r.asksAt(gatewayLink, sixA, open6(sixA, nonceA, whatever), opened6(sixA, nonceA))
		r.asksAt(gatewayLink, sixA, open6(sixA, nonceA, whatever), opened6(sixA, nonceA))
		r.asksAt(gatewayLink, sixAPrivate, open6(sixAPrivate, nonceA, whatever), opened6(sixAPrivate, nonceA))
		r.pins(2)
		// K2: a device's third, whatever address it asks from.
		third := "02010000 00000e10" + v4(sixA.Addr()) + nonceA + "11000000 2328" + whatever
		r.asksAt(gatewayLink, sixA, third, "0281000a 0000001e 00000e10 ........ ........ ........"+hexOf(octets(third)[24:]))
		r.asksAt(gatewayLink, sixB, open6(sixB, nonceA, whatever), opened6(sixB, nonceA))
		// I9: another nonce is another client, where the owner wants it strict.
		other := open6(sixA, nonceB, whatever)
		r.asksAt(gatewayLink, sixA, other, "02810002 ........ 00000e10 ........ ........ ........"+hexOf(octets(other)[24:]))
		end := "02010000 00000000" + v4(sixA.Addr()) + nonceA + "06000000 2328" + whatever
		r.asksAt(gatewayLink, sixA, end, "02810000 00000000 00000e10 00000000 00000000 00000000"+hexOf(octets(end)[24:]))
		r.pins(2)
		time.Sleep(time.Hour + time.Second)
		r.pins(0)
	})
}

// TestPinhole6Filters: a pinhole for one network and one port of it.
func TestPinhole6Filters(t *testing.T) {
	t.Parallel()
	inBubble6(t, nil, func(r *rig) {
		const filter = "03000014 00400035 20010db8 00090000 00000000 00000000" // 2001:db8:9::/64 port 53
		r.asksAt(gatewayLink, sixA, open6(sixA, nonceA, "0000"+zero6)+filter, opened6(sixA, nonceA)+filter)
		for _, m := range r.kernel.Mappings() {
			want := portmap.Remote{Prefix: netip.MustParsePrefix("2001:db8:9::/64"), Port: 53}
			if len(m.Remotes) != 1 || m.Remotes[0] != want {
				t.Errorf("remotes %v", m.Remotes)
			}
		}
		r.pins(1)
		four := open6(sixA, nonceA, "0000"+zero6) + onlyNine
		r.asksAt(gatewayLink, sixA, four, error6("06", four))
	})
}

// pins wants so many pinholes in the kernel.
func (r *rig) pins(want int) {
	r.t.Helper()
	if got := r.kernel.Mappings(); len(got) != want {
		r.t.Errorf("%d pinholes, want %d: %v", len(got), want, got)
	}
}

// TestAnnounce6: to all nodes of the link, from the link-local address.
func TestAnnounce6(t *testing.T) {
	t.Parallel()
	inBubble6(t, nil, func(r *rig) {
		r.take()
		r.epoch.Restart(time.Now())
		r.server.Announce()
		got := r.take()
		if len(got) != 1 || got[0].to != announced6 || got[0].from != gatewayLink ||
			!like(got[0].bytes, "02800000 00000000 00000000 00000000 00000000 00000000") {
			t.Errorf("PCP-32: announced %v", got)
		}
	})
}

// TestStrangers6: who is not answered.
func TestStrangers6(t *testing.T) {
	t.Parallel()
	inBubble6(t, nil, func(r *rig) {
		for name, p := range map[string]datagram.Packet{
			"A2/another interface": {Source: sixA, Destination: gatewayLink, Ifindex: lanIndex + 1},
			"A6/off link":          {Source: netip.MustParseAddrPort("[2001:db8:9::50]:40000"), Destination: gatewayLink, Ifindex: lanIndex},
			"A4/not ours":          {Source: sixA, Destination: netip.MustParseAddr("2001:db8:5::5"), Ifindex: lanIndex},
			"A8/mapped":            {Source: netip.MustParseAddrPort("[::ffff:192.168.1.50]:40000"), Destination: gatewayLink, Ifindex: lanIndex},
			"A8/IPv4":              {Source: hostA, Destination: gatewayLink, Ifindex: lanIndex},
			"multicast":            {Source: sixA, Destination: announced6.Addr(), Ifindex: lanIndex},
		} {
			r.take()
			r.conn.in <- arrival{p, octets(open6(sixA, nonceA, "0000"+zero6))}
			for _, s := range r.take() {
				if s.to != announced6 {
					t.Errorf("%s: answered %s", name, words(s.bytes))
				}
			}
		}
	})
}
