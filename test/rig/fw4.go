package rig

import (
	"os"
	"path/filepath"
	"testing"
)

// FW4 is the shape of OpenWrt's ruleset and of its reload: one transaction that
// flushes the table and declares everything again, with the includes of a directory, which
// OpenWrt has as /usr/share/nftables.d, where fw4 puts them.
func FW4(t testing.TB, dir string) string {
	t.Helper()
	include := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return `table inet fw4
flush table inet fw4
table inet fw4 {
	chain forward {
		type filter hook forward priority filter; policy drop;
		` + include("chain-pre/forward/20-portcullis.nft") + `
		ct state vmap { established : accept, related : accept } comment "!fw4: Handle forwarded flows"
		iifname "br-lan" jump forward_lan comment "!fw4: Handle lan IPv4/IPv6 forward traffic"
		iifname "wan0" jump forward_wan comment "!fw4: Handle wan IPv4/IPv6 forward traffic"
		jump handle_reject
	}
	chain forward_lan {
		oifname "wan0" accept comment "!fw4: Accept lan to wan forwarding"
	}
	chain forward_wan {
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply } accept
	}
	chain handle_reject {
		meta l4proto tcp reject with tcp reset
		reject with icmpx port-unreachable
	}
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		meta nfproto ipv4 oifname "wan0" masquerade
	}
	` + include("table-post/20-portcullis.nft") + `
}
`
}
