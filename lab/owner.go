package lab

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// OwnerChain is the forward chain of the firewall that the gateway's owner has,
// as firewall.accept_chain names it.
const OwnerChain = "inet owner forward"

// OwnerFirewall gives the gateway what every home router has: masquerading
// towards the Internet, and a forward chain that drops what the LAN did not
// start.
//
//	table inet owner {
//		chain forward {
//			type filter hook forward priority filter; policy drop;
//			ct state established,related accept
//			iifname "br-lan" oifname "wan0" accept
//		}
//		chain postrouting {
//			type nat hook postrouting priority srcnat; policy accept;
//			oifname "wan0" masquerade
//		}
//	}
func (n *Network) OwnerFirewall() error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.Gateway.ns)))
	if err != nil {
		return fmt.Errorf("lab: nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "owner"})
	drop := nftables.ChainPolicyDrop
	forward := conn.AddChain(&nftables.Chain{
		Table: table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	postrouting := conn.AddChain(&nftables.Chain{
		Table: table, Name: "postrouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	rules := []struct {
		chain *nftables.Chain
		exprs []expr.Any
	}{
		{forward, append(established(), accept)},
		{forward, append(append(interfaceIs(expr.MetaKeyIIFNAME, Bridge), interfaceIs(expr.MetaKeyOIFNAME, WANInterface)...), accept)},
		{postrouting, append(interfaceIs(expr.MetaKeyOIFNAME, WANInterface), &expr.Masq{})},
	}
	for _, r := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: r.chain, Exprs: r.exprs})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("lab: the owner's firewall: %w", err)
	}
	return nil
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
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.Gateway.ns)))
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
