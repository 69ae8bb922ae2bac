package ssdp_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/datagram"
)

// TestSecondNetwork: who searches from the network of another address is answered from
// there, and told of it; what is asked at one address is answered at that one; only the
// first is announced.
func TestSecondNetwork(t *testing.T) {
	second, shared := netip.MustParseAddr("10.10.0.1"), netip.MustParseAddr("192.168.1.254")
	locals := []netip.Addr{gateway, second, shared}
	networks := []netip.Prefix{lan, netip.MustParsePrefix("10.10.0.0/24"), netip.PrefixFrom(shared, 32), netip.MustParsePrefix("172.16.0.0/16")}
	neighbour := netip.MustParseAddrPort("10.10.0.5:40000")
	routed := netip.MustParseAddrPort("172.16.9.9:40000") // behind another router
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		defer r.finish()
		r.server.SetAddresses(locals, networks)
		pass(time.Minute)
		if got := r.conn.take(); len(got) != 0 {
			t.Errorf("further addresses are announced: %d datagrams", len(got))
		}
		to := func(a netip.Addr) func(*datagram.Packet) {
			return func(p *datagram.Packet) { p.Destination = a }
		}
		for name, c := range map[string]struct {
			from   netip.AddrPort
			edit   func(*datagram.Packet)
			search []byte
			at     netip.Addr // "": silence
		}{
			"first network":                   {clientA, nil, search(root, "MX: 1"), gateway},
			"second network":                  {neighbour, nil, search(root, "MX: 1"), second},
			"second network, everything":      {neighbour, nil, search("ssdp:all", "MX: 1"), second},
			"behind a router":                 {routed, nil, search(root, "MX: 1"), gateway},
			"second address asked":            {clientA, to(second), search(root), second},
			"shared address asked":            {clientA, to(shared), search(root), shared},
			"first asked from the second":     {neighbour, to(gateway), search(root), gateway},
			"an address that is not of these": {clientA, to(netip.MustParseAddr("203.0.113.5")), search(root), netip.Addr{}},
		} {
			if c.edit == nil {
				r.from(c.from, c.search)
			} else {
				r.from(c.from, c.search, c.edit)
			}
			pass(2 * time.Second)
			answers := r.conn.take()
			if len(answers) == 0 != !c.at.IsValid() {
				t.Errorf("%s: %d answers", name, len(answers))
			}
			for _, a := range answers {
				if location := read(t, a.text).header.Get("LOCATION"); a.from != c.at || !strings.HasPrefix(location, "http://"+c.at.String()+":") {
					t.Errorf("%s: from %s, LOCATION %s", name, a.from, location)
				}
			}
		}
		// One that goes is not told any more, and its answers that wait go with it.
		r.from(neighbour, search("ssdp:all", "MX: 5"))
		synctest.Wait()
		r.server.SetAddresses([]netip.Addr{gateway}, networks)
		pass(time.Minute)
		if got := r.conn.take(); len(got) != 0 {
			t.Errorf("%d answers from an address that is gone, the first from %s", len(got), got[0].from)
		}
		r.from(neighbour, search(root, "MX: 1"))
		if got := r.conn.take(); len(got) != 1 || got[0].from != gateway {
			t.Errorf("without the second address: %+v", got)
		}
	})
}
