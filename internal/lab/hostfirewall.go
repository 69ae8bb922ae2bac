package lab

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// FirewallChain is the forward chain of the gateway's own firewall,
// as firewall.accept_chain names it.
const FirewallChain = "inet hostfw forward"

// HostFirewall sets up what every home router has: masquerading
// towards the Internet for IPv4, and a forward chain that drops what the LAN did
// not start, of either family. What IPv6 cannot do without passes (RFC 4890
// section 4.3.1), and so does ping.
//
//	table inet hostfw {
//		chain forward {
//			type filter hook forward priority filter; policy drop;
//			ct state established,related accept
//			iifname "br-lan" oifname "wan0" accept
//			icmpv6 type 1-4 accept       # errors, packet-too-big above all
//			icmpv6 type 128-129 accept   # echo
//		}
//		chain postrouting {
//			type nat hook postrouting priority srcnat; policy accept;
//			meta nfproto ipv4 oifname "wan0" masquerade
//		}
//	}
//
// It has no input chain: see HostFirewallInput.
func (n *Network) HostFirewall() error {
	return n.firewallTable(func(conn *nftables.Conn, table *nftables.Table) []firewallRule {
		forward := filterChain(conn, table, "forward", nftables.ChainHookForward)
		postrouting := conn.AddChain(&nftables.Chain{
			Table: table, Name: "postrouting", Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		return []firewallRule{
			{forward, allOf(established(), accept())},
			{forward, allOf(interfaceIs(expr.MetaKeyIIFNAME, Bridge), interfaceIs(expr.MetaKeyOIFNAME, WANInterface), accept())},
			{forward, allOf(icmp6(1, 4), accept())},
			{forward, allOf(icmp6(128, 129), accept())},
			{postrouting, allOf(familyIs(unix.NFPROTO_IPV4), interfaceIs(expr.MetaKeyOIFNAME, WANInterface), []expr.Any{&expr.Masq{}})},
		}
	})
}

// HostFirewallInput sets up the other half: nothing that the WAN starts
// reaches the gateway itself, but for what IPv6 cannot do without (RFC 4890
// section 4.4.1). It is apart from HostFirewall because behind it nobody can
// tell whether the daemon would have kept silent by itself.
//
//	table inet hostfw {
//		chain input {
//			type filter hook input priority filter; policy drop;
//			ct state established,related accept
//			iifname "br-lan" accept    # and "lo"
//			icmpv6 type 1-4 accept
//			icmpv6 type 128-129 accept
//			icmpv6 type 133-136 accept # neighbours and routers
//		}
//	}
func (n *Network) HostFirewallInput() error {
	return n.firewallTable(func(conn *nftables.Conn, table *nftables.Table) []firewallRule {
		input := filterChain(conn, table, "input", nftables.ChainHookInput)
		return []firewallRule{
			{input, allOf(established(), accept())},
			{input, allOf(interfaceIs(expr.MetaKeyIIFNAME, Bridge), accept())},
			{input, allOf(interfaceIs(expr.MetaKeyIIFNAME, "lo"), accept())},
			{input, allOf(icmp6(1, 4), accept())},
			{input, allOf(icmp6(128, 129), accept())},
			{input, allOf(icmp6(133, 136), accept())},
		}
	})
}

type firewallRule struct {
	chain *nftables.Chain
	exprs []expr.Any
}

// firewallTable adds to the table of that firewall in one transaction.
func (n *Network) firewallTable(add func(*nftables.Conn, *nftables.Table) []firewallRule) error {
	conn, err := nftables.New(nftables.WithNetNSFd(n.Gateway.space.FD()))
	if err != nil {
		return fmt.Errorf("lab: nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "hostfw"})
	for _, r := range add(conn, table) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: r.chain, Exprs: r.exprs})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("lab: the host firewall: %w", err)
	}
	return nil
}

// filterChain is a chain that drops what no rule of it accepts.
func filterChain(conn *nftables.Conn, table *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	drop := nftables.ChainPolicyDrop
	return conn.AddChain(&nftables.Chain{
		Table: table, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
}

func allOf(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// icmp6 is for the ICMPv6 types from first to last.
func icmp6(first, last byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{first}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{last}},
	}
}

func familyIs(family byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
	}
}

func established() []expr.Any {
	mask := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

// Tables lists the nftables tables in the gateway's kernel, "family name".
func (n *Network) Tables() ([]string, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(n.Gateway.space.FD()))
	if err != nil {
		return nil, fmt.Errorf("lab: nftables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("lab: list tables: %w", err)
	}
	var names []string
	for _, t := range tables {
		family := map[nftables.TableFamily]string{
			nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
		}[t.Family]
		names = append(names, family+" "+t.Name)
	}
	return names, nil
}
