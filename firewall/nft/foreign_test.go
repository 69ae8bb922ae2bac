package nft_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// taken lists the ports that are forwarded: "tcp 80, 443; udp 53".
func taken(f *firewall.Forwards) string {
	var parts []string
	for _, t := range []portmap.Transport{portmap.TCP, portmap.UDP} {
		var ports []string
		for p := 0; p <= 65535; p++ {
			if _, ok := f.Taken(t, uint16(p)); !ok {
				continue
			}
			low := p
			for p < 65535 {
				if _, ok := f.Taken(t, uint16(p+1)); !ok {
					break
				}
				p++
			}
			if low == p {
				ports = append(ports, fmt.Sprint(p))
			} else {
				ports = append(ports, fmt.Sprintf("%d-%d", low, p))
			}
		}
		if ports != nil {
			parts = append(parts, t.String()+" "+strings.Join(ports, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

func TestForwarded(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ rules, want string }{
		"nothing":                    {"", ""},
		"a port":                     {"tcp dport 8080 dnat to 192.168.1.20", "tcp 8080"},
		"with a comment":             {`tcp dport 8080 counter log prefix "web " dnat to 192.168.1.20:80 comment "web"`, "tcp 8080"},
		"a range":                    {"udp dport 27015-27030 dnat to 192.168.1.20", "udp 27015-27030"},
		"a set":                      {"tcp dport { 80, 443, 8000-8010 } dnat to 192.168.1.20", "tcp 80, 443, 8000-8010"},
		"a named set":                {"tcp dport @web dnat to 192.168.1.20", "tcp 80, 443"},
		"a named interval set":       {"udp dport @games dnat to 192.168.1.20", "udp 27015-27030, 65535"},
		"both transports":            {"meta l4proto { tcp, udp } th dport 3074 dnat to 192.168.1.20", "tcp 3074; udp 3074"},
		"any transport":              {"th dport 3074 dnat to 192.168.1.20", "tcp 3074; udp 3074"},
		"another transport":          {"meta l4proto sctp th dport 3074 dnat to 192.168.1.20", ""},
		"all but one":                {"tcp dport != 22 dnat to 192.168.1.20", "tcp 0-21, 23-65535"},
		"two conditions":             {"tcp dport 1000-2000 tcp dport 1500-3000 dnat to 192.168.1.20", "tcp 1500-2000"},
		"a concatenation":            {"meta l4proto . th dport { tcp . 80, udp . 443 } dnat to 192.168.1.20", "tcp 80; udp 443"},
		"a map of targets":           {"dnat to tcp dport map { 80 : 192.168.1.20, 443 : 192.168.1.21 }", "tcp 80, 443"},
		"a map of interface, port":   {`dnat to iifname . tcp dport map { "wan0" . 80 : 192.168.1.20, "lan0" . 81 : 192.168.1.20 }`, "tcp 80"},
		"a verdict map is not read":  {"tcp dport vmap { 80 : jump web, 8000-8010 : goto web, 22 : accept }", ""},
		"what follows one is":        {`iifname vmap { "lan0" : jump web }; tcp dport 81 dnat to 192.168.1.20`, "tcp 81"},
		"a jump":                     {`iifname "wan0" jump one`, "tcp 7777"},
		"a jump that narrows":        {"tcp dport 80-90 jump web", "tcp 80-90"},
		"redirect":                   {"udp dport 53 redirect to :5353", "udp 53"},
		"another interface":          {`iifname "lan0" tcp dport 80 redirect to :3128`, ""},
		"any but another":            {`iifname != "lan0" tcp dport 80 redirect to :3128`, "tcp 80"},
		"any but the WAN":            {`iifname != "wan0" tcp dport 80 redirect to :3128`, ""},
		"an interface pattern":       {`iifname "wan*" tcp dport 80 dnat to 192.168.1.20`, "tcp 80"},
		"interfaces":                 {`iifname { "wan0", "wan1" } tcp dport 80 dnat to 192.168.1.20`, "tcp 80"},
		"other interfaces":           {`iifname { "lan0", "lan1" } tcp dport 80 dnat to 192.168.1.20`, ""},
		"to our address":             {"ip daddr 203.0.113.5 tcp dport 80 dnat to 192.168.1.20", "tcp 80"},
		"to another address":         {"ip daddr 203.0.113.99 tcp dport 80 dnat to 192.168.1.20", ""},
		"to another address, all":    {"ip daddr 203.0.113.99 dnat to 192.168.1.20", ""},
		"IPv6 only":                  {"meta nfproto ipv6 tcp dport 80 redirect to :8080", ""},
		"a DMZ host":                 {`iifname "wan0" dnat to 192.168.1.20`, "tcp 0-65535; udp 0-65535"},
		"a condition not understood": {"ip saddr 198.51.100.0/24 tcp dport 80 dnat to 192.168.1.20", "tcp 80"},
		"that and no port":           {"ip saddr 198.51.100.0/24 dnat to 192.168.1.20", ""},
		"a conntrack expression the library cannot read": {"meta l4proto tcp ct original proto-src 5 tcp dport 80 dnat to 192.168.1.20", "tcp 80"},
		"what no packet reaches":                         {"return; tcp dport 80 dnat to 192.168.1.20", ""},
		"behind some that return":                        {"tcp dport 22 return; tcp dport 80 dnat to 192.168.1.20", "tcp 80"},
		"no translation":                                 {"tcp dport 80 accept", ""},
		"a mark":                                         {"tcp dport 80 meta mark set 1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := netnstest.New(t, "gateway")
			b := open(t, n)
			do(t, n, `table inet owner {
				set web { type inet_service; elements = { 80, 443 } }
				set games { type inet_service; flags interval; elements = { 27015-27030, 65535 } }
				chain web {
					meta nfproto ipv4 meta l4proto { tcp, udp } dnat to 192.168.1.20
				}
				chain one {
					tcp dport 7777 dnat ip to 192.168.1.20
				}
				chain prerouting {
					type nat hook prerouting priority dstnat; policy accept;
					`+strings.ReplaceAll(tc.rules, "dnat to", "dnat ip to")+`
				}
				chain output {
					type nat hook output priority -100; policy accept;
					tcp dport 1 redirect to :2
				}
			}`)
			ours := []portmap.Mapping{homenet.Mapping(1, "udp 5000", homenet.Alice+":6000")}
			if err := b.Apply(ctx(t), ours, nil); err != nil {
				t.Fatal(err)
			}
			f, err := b.Forwarded(ctx(t))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, taken(f)); diff != "" {
				t.Errorf("forwarded (-want +got):\n%s", diff)
			}
		})
	}
}

// The forms in which other programs write a port forward, without what does not matter
// here; those of iptables-nft are below and in firewall/iptables.
var forwardingPrograms = map[string]struct{ rules, want string }{
	"fw4": {`table inet fw4 {
		chain dstnat {
			type nat hook prerouting priority dstnat; policy accept;
			iifname "br-lan" jump dstnat_lan comment "!fw4: Handle lan IPv4/IPv6 dstnat traffic"
			iifname { "wan0", "wan1" } jump dstnat_wan comment "!fw4: Handle wan IPv4/IPv6 dstnat traffic"
		}
		chain dstnat_lan {
			ip saddr 192.168.1.0/24 ip daddr 203.0.113.5 tcp dport 8443 dnat ip to 192.168.1.20:443 comment "!fw4: web (reflection)"
			meta nfproto ipv4 udp dport 53 counter redirect to :53 comment "!fw4: DNS for all"
		}
		chain dstnat_wan {
			meta nfproto ipv4 tcp dport 8443 counter dnat ip to 192.168.1.20:443 comment "!fw4: web"
			meta nfproto ipv4 udp dport 27015-27030 counter dnat ip to 192.168.1.21 comment "!fw4: game"
			meta nfproto ipv4 tcp dport { 6881, 6882 } counter dnat ip to 192.168.1.21 comment "!fw4: list"
			meta nfproto ipv4 tcp dport 2222 counter redirect to :22 comment "!fw4: redirect"
		}
	}`, "tcp 2222, 6881-6882, 8443; udp 27015-27030"},
	"firewalld": {`table inet firewalld {
		chain nat_PREROUTING {
			type nat hook prerouting priority dstnat + 10; policy accept;
			jump nat_PREROUTING_ZONES
		}
		chain nat_PREROUTING_ZONES {
			ip saddr 10.0.0.0/8 goto nat_PRE_trusted
			iifname "lan0" goto nat_PRE_internal
			iifname "wan0" goto nat_PRE_external
			goto nat_PRE_public
		}
		chain nat_PRE_trusted {
		}
		chain nat_PRE_internal {
			meta nfproto ipv4 tcp dport 81 dnat ip to 192.168.1.20:81
		}
		chain nat_PRE_external {
			jump nat_PRE_external_allow
		}
		chain nat_PRE_external_allow {
			meta nfproto ipv4 tcp dport 8080 dnat ip to 192.168.1.20:80
			meta nfproto ipv4 udp dport 5000-5010 redirect to :6000
		}
		chain nat_PRE_public {
		}
	}`, "tcp 8080; udp 5000-5010"},
	"Docker's own nftables": {`table ip docker-bridges {
		chain nat-PREROUTING {
			type nat hook prerouting priority dstnat; policy accept;
			fib daddr type local counter jump nat-prerouting-and-output
		}
		chain nat-prerouting-and-output {
			iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80 comment "DNAT"
			ip daddr 127.0.0.1 iifname != "docker0" tcp dport 8081 counter dnat to 172.17.0.2:80 comment "DNAT"
		}
	}`, "tcp 8080"},
	"netavark": {`table inet netavark {
		chain PREROUTING {
			type nat hook prerouting priority dstnat; policy accept;
			fib daddr type local jump HOSTPORT-DNAT
		}
		chain HOSTPORT-DNAT {
			tcp dport 8080 jump nv_dnat
		}
		chain nv_dnat {
			ip saddr 10.88.0.0/16 tcp dport 8080 meta mark set 1
			tcp dport 8080 dnat ip to 10.88.0.2:80
		}
	}`, "tcp 8080"},
	"nftables.conf": {`table ip nat {
		map forwards { type inet_service : ipv4_addr . inet_service; elements = { 80 : 192.168.1.20 . 80, 8443 : 192.168.1.21 . 443 } }
		set games { type inet_proto . inet_service; flags interval; elements = { udp . 27015-27030, tcp . 27036 } }
		chain prerouting {
			type nat hook prerouting priority -100;
			iifname "wan0" dnat to tcp dport map @forwards
			iifname "wan0" meta l4proto . th dport @games dnat to 192.168.1.22
			ip daddr 203.0.113.5 tcp dport { 25, 465 } dnat to 192.168.1.23
		}
	}`, "tcp 25, 80, 465, 8443, 27036; udp 27015-27030"},
}

func TestForwardedByPrograms(t *testing.T) {
	t.Parallel()
	for name, tc := range forwardingPrograms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := netnstest.New(t, "gateway")
			b := open(t, n)
			do(t, n, tc.rules)
			f, err := b.Forwarded(ctx(t))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, taken(f)); diff != "" {
				t.Errorf("forwarded (-want +got):\n%s", diff)
			}
		})
	}
}

// The rules that iptables-nft 1.8.9 writes for Docker and for a port forward by
// hand; the expressions are those it was seen to send.
func TestForwardedByIptables(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	b := open(t, n)
	dnat := &expr.Target{Name: "DNAT", Rev: 2, Info: &xt.NatRange2{NatRange: xt.NatRange{
		Flags: uint(xt.NatRangeMapIPs), MinIP: net.IPv4(172, 17, 0, 2), MaxIP: net.IPv4(172, 17, 0, 2),
	}}}
	iface := func(op expr.CmpOp, name string) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: append([]byte(name), 0)}}
	}
	proto := func(p byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{p}}}
	}
	dport := func(cond expr.Any) []expr.Any {
		return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, cond}
	}
	foreign(t, n, func(q *nftables.Conn) {
		table := q.AddTable(&nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4})
		docker := q.AddChain(&nftables.Chain{Name: "DOCKER", Table: table})
		pre := q.AddChain(&nftables.Chain{
			Name: "PREROUTING", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		})
		add := func(c *nftables.Chain, parts ...[]expr.Any) {
			var all []expr.Any
			for _, p := range parts {
				all = append(all, p...)
			}
			q.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: all})
		}
		one := func(e expr.Any) []expr.Any { return []expr.Any{&expr.Counter{}, e} }
		add(pre, []expr.Any{&expr.Match{Name: "addrtype", Rev: 1, Info: &xt.AddrTypeV1{Dest: 1 << 2}}},
			one(&expr.Verdict{Kind: expr.VerdictJump, Chain: "DOCKER"}))
		add(docker, iface(expr.CmpOpNeq, "docker0"), proto(unix.IPPROTO_TCP),
			dport(&expr.Cmp{Register: 1, Data: []byte{0x1f, 0x90}}), one(dnat))
		add(docker, iface(expr.CmpOpNeq, "docker0"), proto(unix.IPPROTO_UDP),
			dport(&expr.Range{Register: 1, FromData: []byte{0x14, 0xb4}, ToData: []byte{0x14, 0xbe}}), one(dnat))
		add(docker, iface(expr.CmpOpNeq, "docker0"), proto(unix.IPPROTO_TCP),
			[]expr.Any{&expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: [2]uint16{0, 65535}, DstPorts: [2]uint16{9000, 9001}}}}, one(dnat))
		add(pre, iface(expr.CmpOpEq, "lan0"), proto(unix.IPPROTO_TCP),
			dport(&expr.Cmp{Register: 1, Data: []byte{0, 53}}), one(dnat))
	})
	f, err := b.Forwarded(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("tcp 8080, 9000-9001; udp 5300-5310", taken(f)); diff != "" {
		t.Errorf("forwarded (-want +got):\n%s", diff)
	}
	if where, _ := f.Taken(portmap.TCP, 8080); where != "a rule in chain DOCKER of table ip nat" {
		t.Errorf("the rule is described as %q", where)
	}
}

// The multiport extension, which the library can neither read nor write.
func TestMultiport(t *testing.T) {
	t.Parallel()
	info := func(kind byte, inverted byte, ports []uint16, ranges ...int) []byte {
		b := make([]byte, 48)
		b[0], b[1], b[47] = kind, byte(len(ports)), inverted
		for i, p := range ports {
			copy(b[2+2*i:], binaryutil.NativeEndian.PutUint16(p))
		}
		for _, i := range ranges {
			b[32+i] = 1
		}
		return b
	}
	for name, tc := range map[string]struct {
		info []byte
		want string
	}{
		"ports and a range": {info(1, 0, []uint16{2201, 3000, 3010}, 1), "2201-2201 3000-3010"},
		"source ports":      {info(0, 0, []uint16{2201}), "not understood"},
		"inverted":          {info(1, 1, []uint16{2201}), "not understood"},
		"a range cut short": {info(1, 0, []uint16{2201}, 0), "2201-2201"},
		"too many":          {append([]byte{1, 255}, make([]byte, 46)...), strings.TrimSpace(strings.Repeat("0-0 ", 15))},
		"too short":         {[]byte{1, 1, 0}, "not understood"},
		"empty":             {nil, "not understood"},
	} {
		if got := nft.Multiport(tc.info); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// A rule is named by the owner's own comment, and no comment can do harm.
func TestForwardedNamesTheRule(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		userData []byte
		want     string
	}{
		"none":      {nil, ""},
		"a comment": {append([]byte{0, 4}, "web\x00"...), ` ("web")`},
		"K4/cut":    {[]byte{0, 200, 'x'}, ""},
		"K4/long":   {append([]byte{0, 100}, strings.Repeat("\n", 100)...), ` ("` + strings.Repeat(`\n`, 64) + `")`},
	} {
		if got := nft.CommentIn(tc.userData); len(got) > 0 != (tc.want != "") {
			t.Errorf("%s: comment %q", name, got)
		}
		n := netnstest.New(t, "gateway")
		b := open(t, n)
		foreign(t, n, func(q *nftables.Conn) {
			table := q.AddTable(&nftables.Table{Name: "owner", Family: nftables.TableFamilyIPv4})
			pre := q.AddChain(&nftables.Chain{
				Name: "pre", Table: table, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
			})
			q.AddRule(&nftables.Rule{Table: table, Chain: pre, UserData: tc.userData, Exprs: []expr.Any{&expr.Redir{}}})
		})
		f, err := b.Forwarded(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		if where, _ := f.Taken(portmap.TCP, 1); where != "a rule in chain pre of table ip owner"+tc.want {
			t.Errorf("%s: the rule is described as %q", name, where)
		}
	}
}
