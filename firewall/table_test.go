package firewall_test

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"portcullis/firewall"
	"portcullis/portmap"
)

// TestTableMappingsAreEnforceable: whatever is asked for, what a Table lets stand side by
// side a State can hold, so that a firewall refuses nothing but what the kernel does.
func TestTableMappingsAreEnforceable(t *testing.T) {
	clients := []portmap.Client{
		{Addr: netip.MustParseAddr("10.0.0.2"), MAC: portmap.MAC{1}, Interface: "lan", Via: portmap.ViaUPnP},
		{Addr: netip.MustParseAddr("10.0.0.2"), MAC: portmap.MAC{1}, Interface: "lan", Via: portmap.ViaPCP},
		{Addr: netip.MustParseAddr("2001:db8::2"), MAC: portmap.MAC{1}, Interface: "lan", Via: portmap.ViaUPnP},
		{Addr: netip.MustParseAddr("2001:db8::2"), MAC: portmap.MAC{1}, Interface: "lan", Via: portmap.ViaPCP},
	}
	remotes := map[portmap.Kind][]portmap.Remote{
		portmap.NAT4: {
			{Prefix: prefix("198.51.100.7")}, {Prefix: prefix("198.51.100.0/24")}, {Prefix: prefix("198.51.0.0/16"), Port: 53},
			{Prefix: prefix("0.0.0.0/0")}, {Prefix: prefix("0.0.0.0/0"), Port: 54}, {Prefix: prefix("2001:db8::/32")},
		},
		portmap.Pinhole6: {
			{Prefix: prefix("2001:db8:9::7")}, {Prefix: prefix("2001:db8:9::/64")}, {Prefix: prefix("2001:db8::/32"), Port: 53},
			{Prefix: prefix("::/0")}, {Prefix: prefix("::/0"), Port: 54}, {Prefix: prefix("198.51.100.7")},
		},
	}
	rapid.Check(t, func(t *rapid.T) {
		table, now := portmap.NewTable(), time.Now()
		for range rapid.IntRange(2, 20).Draw(t, "requests") {
			r := portmap.Request{Client: rapid.SampledFrom(clients).Draw(t, "client"), Transport: portmap.UDP}
			if r.Client.Addr.Is6() {
				r.Kind = portmap.Pinhole6
			}
			if r.Client.Via == portmap.ViaPCP {
				r.Named, r.RemotesAre = portmap.ByInternal, portmap.RemotesAdd
			}
			r.Internal = netip.AddrPortFrom(r.Client.Addr, rapid.Uint16Range(0, 2).Draw(t, "internal"))
			r.ExternalPort = rapid.Uint16Range(0, 1).Draw(t, "external")
			r.Remotes = rapid.SliceOfN(rapid.SampledFrom(remotes[r.Kind]), 0, 3).Draw(t, "restrictions")
			c, err := table.Plan(now, r, portmap.Decision{}, time.Hour, 0)
			if err != nil {
				continue
			}
			table = table.Commit(c)
			var all []portmap.Mapping
			for m := range table.All() {
				all = append(all, m)
			}
			s := firewall.NewState()
			change, err := s.Plan(all, nil)
			if err != nil {
				t.Fatalf("%s beside %v: %v", c.New, all, err)
			}
			if s.Commit(change); s.Len() != table.Len() {
				t.Fatalf("the table has %d mappings, the firewall %d: %v", table.Len(), s.Len(), all)
			}
		}
	})
}
