package policy_test

import (
	"net/netip"
	"testing"

	"portcullis/policy"
	"portcullis/portmap"
)

// byHand is the owner's wish for a port of a host.
func byHand(t portmap.Transport, ext uint16, target string) portmap.Request {
	to := netip.MustParseAddrPort(target)
	r := portmap.Request{Client: portmap.Owner(to.Addr()), Transport: t, Internal: to, ExternalPort: ext, Exact: true}
	if to.Addr().Is6() {
		r.Kind, r.ExternalPort = portmap.Pinhole6, to.Port()
	}
	return r
}

// TestByOwner: which walls hold for what the owner opens by hand, and that nothing else does:
// no rule, no default, no quota and no rate of a device.
func TestByOwner(t *testing.T) {
	t.Parallel()
	p := build(t, policy.Config{
		Default: portmap.Deny, Rules: []policy.Rule{{Name: "nobody", Action: portmap.Deny}},
		MappingsPerClient: 1, Mappings: 1024, GrantsPerSecond: 1,
	})
	restricted := byHand(tcp, 8443, "192.168.1.20:443")
	restricted.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
	odd := restricted
	odd.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("2001:db8::/64")}}
	for name, c := range map[string]struct {
		r    portmap.Request
		want portmap.Reason
	}{
		"host":                 {byHand(udp, 27015, "192.168.1.20:27015"), portmap.NoReason},
		"Tier 1":               {byHand(tcp, 443, "192.168.1.20:443"), portmap.NoReason},
		"pinhole":              {byHand(tcp, 0, "[2001:db8:1::20]:22"), portmap.NoReason},
		"routed prefix":        {byHand(tcp, 8443, "172.16.9.9:443"), portmap.NoReason},
		"restricted":           {restricted, portmap.NoReason},
		"B2/SMB inside":        {byHand(tcp, 8443, "192.168.1.20:445"), portmap.ForbiddenPort},
		"B2/SMB outside":       {byHand(tcp, 445, "192.168.1.20:8443"), portmap.ForbiddenPort},
		"B2/SMB by a pinhole":  {byHand(tcp, 0, "[2001:db8:1::20]:445"), portmap.ForbiddenPort},
		"B3/gateway":           {byHand(tcp, 8443, "192.168.1.1:443"), portmap.GatewayTarget},
		"B3/gateway, IPv6":     {byHand(tcp, 0, "[2001:db8:1::1]:443"), portmap.GatewayTarget},
		"B3/loopback":          {byHand(tcp, 8443, "127.0.0.1:443"), portmap.OffLink},
		"B1/Internet":          {byHand(tcp, 8443, "198.51.100.7:443"), portmap.OffLink},
		"B1/Internet, IPv6":    {byHand(tcp, 0, "[2001:db8:99::7]:443"), portmap.OffLink},
		"B4/WAN":               {byHand(tcp, 8443, "203.0.113.5:443"), portmap.OffLink},
		"B4/broadcast":         {byHand(tcp, 8443, "192.168.1.255:443"), portmap.NotAHost},
		"B5/IPv4 within IPv6":  {byHand(tcp, 0, "[::ffff:192.168.1.20]:443"), portmap.OffLink},
		"B6/port 0":            {byHand(tcp, 8443, "192.168.1.20:0"), portmap.BadPort},
		"B7/neither":           {byHand(1, 8443, "192.168.1.20:443"), portmap.BadTransport},
		"B10/wrong family":     {odd, portmap.BadRemote},
		"unique local address": {byHand(tcp, 0, "[fd00:1::20]:443"), portmap.UniqueLocal},
	} {
		f := facts()
		f.ClientMappings, f.Mappings, f.GrantReadyAt = 500, 1000, now.Add(1<<40)
		d := p.Decide(c.r, f)
		if check(t, d, c.want); t.Failed() {
			t.Fatalf("%s: %+v", name, d)
		}
		if d.OverExternalPort || d.Elsewhere != nil || d.Rule != "" {
			t.Errorf("%s: another port is offered, or a rule decides: %+v", name, d)
		}
	}
	full := facts()
	full.Mappings = 1024
	check(t, p.Decide(byHand(udp, 27015, "192.168.1.20:27015"), full), portmap.TotalQuota)
	full.Renewal = true
	check(t, p.Decide(byHand(udp, 27015, "192.168.1.20:27015"), full), portmap.NoReason)
	down := facts()
	down.View.WANs[0].Up = false
	check(t, p.Decide(byHand(udp, 27015, "192.168.1.20:27015"), down), portmap.NoAddress)
}
