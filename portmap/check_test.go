package portmap_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/portmap"
)

// TestCheck: what no mapping may be, and the reason that a client is told, where its
// request can be the cause.
func TestCheck(t *testing.T) {
	t.Parallel()
	good := func() portmap.Mapping {
		a := netip.MustParseAddr("192.168.1.50")
		return portmap.Mapping{
			ID: 1, Transport: portmap.UDP, Internal: netip.AddrPortFrom(a, 5000), ExternalPort: 5000,
			Client: portmap.Client{Addr: a, Interface: "lan", Via: portmap.ViaUPnP}, Claims: portmap.Vias(0).With(portmap.ViaUPnP),
		}
	}
	m := good()
	if err := m.Check(); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	leadsTo := func(addr string) func(*portmap.Mapping) {
		return func(m *portmap.Mapping) {
			m.Internal = netip.AddrPortFrom(netip.MustParseAddr(addr), 5000)
			if m.Internal.Addr().Is6() && !m.Internal.Addr().Is4In6() {
				m.Kind, m.ExternalPort = portmap.Pinhole6, m.Internal.Port()
			}
		}
	}
	const plain = portmap.FirewallFailed // no *Error: no request can be the cause
	for name, c := range map[string]struct {
		spoil func(m *portmap.Mapping)
		want  portmap.Reason
	}{
		"kind":                {func(m *portmap.Mapping) { m.Kind = 7 }, plain},
		"transport":           {func(m *portmap.Mapping) { m.Transport = 1 }, portmap.BadTransport},
		"port 0":              {func(m *portmap.Mapping) { m.Internal = netip.AddrPortFrom(m.Internal.Addr(), 0) }, portmap.BadPort},
		"unspecified":         {leadsTo("0.0.0.0"), portmap.NotAHost},
		"loopback":            {leadsTo("127.0.0.1"), portmap.NotAHost},
		"multicast":           {leadsTo("239.255.255.250"), portmap.NotAHost},
		"broadcast":           {leadsTo("255.255.255.255"), portmap.NotAHost},
		"IPv4 as IPv6":        {leadsTo("::ffff:192.168.1.50"), portmap.NotAHost},
		"loopback of IPv6":    {leadsTo("::1"), portmap.NotAHost},
		"multicast of IPv6":   {leadsTo("ff0e::1"), portmap.NotAHost},
		"link-local":          {leadsTo("fe80::1"), portmap.NotAHost},
		"no client":           {func(m *portmap.Mapping) { m.Client.Addr = netip.Addr{} }, plain},
		"no protocol":         {func(m *portmap.Mapping) { m.Client.Via = 0 }, plain},
		"unknown claim":       {func(m *portmap.Mapping) { m.Claims = 1 << 7 }, plain},
		"lease without claim": {func(m *portmap.Mapping) { m.Leases.Set(portmap.ViaPCP, portmap.Lease{Ends: time.Unix(1, 0)}) }, plain},
		"long description":    {func(m *portmap.Mapping) { m.Description = strings.Repeat("x", portmap.MaxDescription+1) }, plain},
		"line feed in a name": {func(m *portmap.Mapping) { m.Client.Name = "a\nb" }, plain},
	} {
		t.Run(name, func(t *testing.T) {
			m := good()
			c.spoil(&m)
			err := m.Check()
			if err == nil || portmap.ReasonOf(err) != c.want {
				t.Errorf("%v, reason %v; want %v", err, portmap.ReasonOf(err), c.want)
			}
		})
	}
}
