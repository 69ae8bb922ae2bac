package nft_test

import (
	"net/netip"
	"testing"

	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// TestDropsIPv6: the same of what is asked by IPv6, which other tables may drop.
func TestDropsIPv6(t *testing.T) {
	t.Parallel()
	const usual = "ct state established,related accept; meta l4proto ipv6-icmp accept; "
	for name, c := range map[string]struct{ family, policy, rules, want string }{
		"the policy":                 {"inet", "drop", usual, "inet owner input"},
		"of ip6":                     {"ip6", "drop", usual, "ip6 owner input"},
		"of ip":                      {"ip", "drop", "udp dport 7 accept", ""},
		"a rule without a condition": {"ip6", "accept", usual + "drop", "ip6 owner input"},
		"IPv4 alone":                 {"inet", "drop", usual + "meta nfproto ipv4 accept; ip protocol udp accept; ip daddr 192.168.1.1 accept", "inet owner input"},
		"IPv6 alone":                 {"inet", "drop", usual + "meta nfproto ipv6 accept", ""},
		"the port":                   {"inet", "drop", usual + "udp dport 5351 accept", ""},
		"the next header":            {"inet", "drop", usual + "ip6 nexthdr udp accept", ""},
		"another next header":        {"inet", "drop", usual + "ip6 nexthdr tcp accept", "inet owner input"},
		"link-local addresses":       {"inet", "drop", usual + "ip6 saddr fe80::/10 accept", ""},
		"the gateway's":              {"inet", "drop", usual + "ip6 daddr fe80::1 accept", ""},
		"its network":                {"inet", "drop", usual + "ip6 daddr fe80::/64 accept", ""},
		"another host's":             {"ip6", "drop", usual + "ip6 daddr fe80::2 accept", "ip6 owner input"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := netnstest.New(t, "gateway")
			do(t, n, `table `+c.family+` owner {
				chain input { type filter hook input priority 0; policy `+c.policy+`; `+c.rules+`; }
			}`)
			var got []string
			err := n.In(func() (err error) {
				got, err = nft.Drops(t.Context(), []nft.Asked{{
					LAN: "br-lan", To: []netip.Addr{netip.MustParseAddr("fe80::1")}, Transport: portmap.UDP, Port: 5351,
				}})
				return err
			})
			if err != nil || got[0] != c.want {
				t.Errorf("dropped by %q, want %q; %v", got, c.want, err)
			}
		})
	}
}

// TestDrops: what rules drop for certain is told, and nothing else: whatever may let a
// packet pass, or is not understood, counts as if it did.
func TestDrops(t *testing.T) {
	t.Parallel()
	const usual = "ct state established,related accept; ct state invalid drop; iifname lo accept; meta l4proto { icmp, ipv6-icmp } accept; tcp dport { 22, 5000 } accept; "
	for name, c := range map[string]struct {
		policy, rules string
		drops         bool
	}{
		"nothing":                   {"accept", "", false},
		"the policy":                {"drop", "", true},
		"and what is not ours":      {"drop", usual, true},
		"states in a map":           {"drop", "ct state vmap { established : accept, related : accept, invalid : drop }; ct status dnat accept", true},
		"states in a set":           {"drop", "ct state { established, related } accept", true},
		"the last rule":             {"accept", usual + "counter reject with icmpx admin-prohibited", true},
		"that only logs":            {"accept", usual + `counter log prefix "in "`, false},
		"behind a jump":             {"accept", usual + "jump zones; accept", true},
		"behind a jump that may be": {"accept", "ip saddr 192.168.1.9 jump zones", false},
		"our ports":                 {"drop", usual + "udp dport { 1900, 5351 } accept", false},
		"a range":                   {"drop", usual + "udp dport 1024-65535 accept", false},
		"the LAN":                   {"drop", usual + `iifname "br-*" accept`, false},
		"another LAN":               {"drop", usual + `iifname "br-guest" accept`, true},
		"the WAN alone":             {"accept", usual + `iifname "wan0" drop`, false},
		"the LAN leaves before":     {"accept", `iifname "br-lan" return; drop`, false},
		"it may leave before":       {"accept", `ip saddr 192.168.0.0/16 return; drop`, false},
		"it leaves for another":     {"accept", `iifname "br-lan" goto lan; drop`, false},
		"some addresses":            {"drop", usual + "ip saddr 192.168.1.0/24 accept", false},
		"of others":                 {"drop", usual + "ip daddr 192.168.1.254 accept", true},
		"new ones":                  {"drop", "ct state new accept", false},
		"a map of interfaces":       {"drop", `iifname vmap { lo : accept, "br-lan" : jump lan }`, false},
		"up to a limit":             {"drop", usual + "limit rate 10/second accept", false},
		"IPv6 alone":                {"drop", usual + "meta nfproto ipv6 accept", true},
		"a host of IPv6":            {"drop", usual + "ip6 daddr fd00::1 accept", true},
		"a set of addresses":        {"drop", usual + "ip saddr @blocked drop", true},
		"a set that may accept":     {"drop", usual + "ip saddr @blocked accept", false},
		"only some":                 {"accept", usual + "udp dport 5351 ip saddr 192.168.1.9 drop", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := netnstest.New(t, "gateway")
			do(t, n, `table inet owner {
				set blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 } }
				chain zones { udp dport 7 accept; jump last; }
				chain last { counter; drop; }
				chain lan { udp dport 7 accept; }
				chain input { type filter hook input priority 0; policy `+c.policy+`; `+c.rules+`; }
				chain forward { type filter hook forward priority 0; policy drop; }
			}`)
			want := ""
			if c.drops {
				want = "inet owner input"
			}
			var got []string
			err := n.In(func() (err error) {
				got, err = nft.Drops(t.Context(), []nft.Asked{{
					LAN: "br-lan", To: []netip.Addr{netip.MustParseAddr("192.168.1.1")}, Transport: portmap.UDP, Port: 5351,
				}})
				return err
			})
			if err != nil || got[0] != want {
				t.Errorf("dropped by %q, want %q; %v", got, want, err)
			}
		})
	}
}
