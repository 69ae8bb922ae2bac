package netif_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
)

// ip runs the program ip, once for each line.
func (s *space) ip(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		_, err := s.Run("", append([]string{"ip"}, strings.Fields(line)...)...)
		s.must(err)
	}
}

// routed is a gateway with a LAN, a WAN and a tunnel.
func routed(t *testing.T) *space {
	t.Helper()
	s := newSpace(t)
	s.Sysctl("net/ipv4/ip_forward", "1")
	s.Sysctl("net/ipv6/conf/all/forwarding", "1")
	for i, name := range []string{"lan0", "wan0", "tun0"} {
		s.veth(name, "peer-"+name, byte(2*i+1))
		s.Up(name, "peer-"+name)
	}
	s.Address("lan0", "192.168.1.1/24", "2001:db8:1::1/64")
	s.Address("wan0", "203.0.113.5/24", "2001:db8:9::5/64")
	s.Address("tun0", "10.66.0.2/24", "fd66::2/64")
	s.ip("route add default via 203.0.113.1 dev wan0", "-6 route add default via 2001:db8:9::1 dev wan0")
	return s
}

// TestLookup: the kernel says by which way answers leave, with rules by source, mark
// and port, and tables, as they are.
func TestLookup(t *testing.T) {
	t.Parallel()
	const host, host6, peer, peer6 = "192.168.1.10", "2001:db8:1::10", "20.20.20.20", "2a00:1450::77"
	for _, tc := range []struct {
		name     string
		network  []string
		from, to string
		mark     uint32
		port     uint16
		by       string // "": not at all
		table    uint32
	}{
		{"the WAN", nil, host, peer, 0, 0, "wan0", 254},
		{"the WAN of IPv6", nil, host6, peer6, 0, 0, "wan0", 254},
		{"wg-quick", wgQuick, host, peer, 0, 0, "tun0", 51820},
		{"wg-quick, its own mark", wgQuick, host, peer, 51820, 0, "wan0", 254},
		{"wg-quick, a host of the LAN", wgQuick, host, "192.168.1.20", 0, 0, "lan0", 254},
		{"IPv6 wg-quick", wgQuick, host6, peer6, 0, 0, "tun0", 51820},
		{"OpenVPN's halves", []string{"route add 0.0.0.0/1 via 10.66.0.1", "route add 128.0.0.0/1 via 10.66.0.1"}, host, peer, 0, 0, "tun0", 254},
		{"one host by a table", []string{"route add default via 10.66.0.1 table 7", "rule add from 192.168.1.10 lookup 7"}, host, peer, 0, 0, "tun0", 7},
		{"another host", []string{"route add default via 10.66.0.1 table 7", "rule add from 192.168.1.10 lookup 7"}, "192.168.1.11", peer, 0, 0, "wan0", 254},
		{"a port by a table", []string{"route add default via 10.66.0.1 table 7", "rule add ipproto udp sport 6881 lookup 7"}, host, peer, 0, 6881, "tun0", 7},
		{"another port", []string{"route add default via 10.66.0.1 table 7", "rule add ipproto udp sport 6881 lookup 7"}, host, peer, 0, 6882, "wan0", 254},
		{"refused", []string{"rule add from 192.168.1.0/24 prohibit priority 5"}, host, peer, 0, 0, "", 0},
		{"no route", []string{"route del default"}, host, peer, 0, 0, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := routed(t)
			s.ip(tc.network...)
			f := netif.Flow{Ifindex: s.Index("lan0"), From: netip.MustParseAddr(tc.from), To: netip.MustParseAddr(tc.to), Mark: tc.mark}
			if tc.port != 0 {
				f.Protocol, f.Port = unix.IPPROTO_UDP, tc.port
			}
			got, err := s.k.Lookup(f)
			if tc.by == "" {
				var errno unix.Errno
				if !errors.As(err, &errno) {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err != nil || got.Ifindex != s.Index(tc.by) || got.Table != tc.table || got.Gateway.IsValid() == (tc.by == "lan0") {
				t.Errorf("%+v, %v; want %s", got, err, tc.by)
			}
		})
	}
}

// wgQuick is a full tunnel as wg-quick sets it up.
var wgQuick = []string{
	"route add default via 10.66.0.1 dev tun0 table 51820", "rule add not fwmark 51820 table 51820 priority 100",
	"rule add table main suppress_prefixlength 0 priority 99",
	"-6 route add default via fd66::1 dev tun0 table 51820", "-6 rule add not fwmark 51820 table 51820 priority 100",
	"-6 rule add table main suppress_prefixlength 0 priority 99",
}

// TestReadRules: rules are read in the words of the program ip.
func TestReadRules(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.ip("rule add from 192.168.77.3 table 100 priority 100", "rule add not fwmark 0xca6c table 51820 priority 90",
		"rule add fwmark 0x100/0x3f00 iif br-lan lookup 1 priority 80", "rule add to 10.0.0.0/8 oif wg0 lookup 70000 priority 70",
		"rule add ipproto udp sport 6881 lookup 7 priority 60",
		"-6 rule add from 2001:db8:77::/64 lookup 9 priority 50")
	var got []string
	for _, r := range s.read().Rules {
		got = append(got, r.Text)
	}
	want := []string{
		"lookup 255", "sport ipproto lookup 7", "to 10.0.0.0/8 oif wg0 lookup 70000", "fwmark 0x100/0x3f00 iif br-lan lookup 1",
		"not fwmark 0xca6c lookup 51820", "from 192.168.77.3/32 lookup 100", "lookup 254", "lookup 253",
		"lookup 255", "from 2001:db8:77::/64 lookup 9", "lookup 254",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r := s.read().Rules[5]
	if r.Priority != 100 || r.Table != 100 || r.From != netip.MustParsePrefix("192.168.77.3/32") {
		t.Errorf("%+v", r)
	}
}
