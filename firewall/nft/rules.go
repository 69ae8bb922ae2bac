package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Registers. The kernel has sixteen of four bytes each; the old names stand for
// four of them at once. A concatenated key takes neighbouring small ones.
const (
	reg1 = unix.NFT_REG_1    // small registers 8 to 11
	reg2 = unix.NFT_REG_2    // small registers 12 to 15
	reg3 = unix.NFT_REG_3    // small registers 16 to 19
	r0   = unix.NFT_REG32_00 // the first four bytes of reg1
	r1   = r0 + 1
	r2   = r0 + 2
	r3   = r0 + 3
	r4   = r0 + 4 // the first four bytes of reg2
)

// Offsets in the IPv4 header, the IPv6 header and both transport headers.
const (
	offProto  = 9
	offNext   = 6 // of IPv6, where no extension header comes first
	offSaddr  = 12
	offDaddr  = 16
	offSaddr6 = 8
	offDaddr6 = 24
	offSport  = 0
	offDport  = 2
)

// ctDNAT is the bit of ct status that says "the destination was translated".
const ctDNAT = 1 << 5

// match is a part of a rule; a rule is the parts in a row.
type match []expr.Any

func rule(parts ...match) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func meta(key expr.MetaKey, reg uint32) expr.Any { return &expr.Meta{Key: key, Register: reg} }

func addr(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

func addr6(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 16}
}

func port(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

// originalPort is the destination port that the first packet of the flow bore
// before translation, in both directions: the external port.
func originalPort(reg uint32) expr.Any {
	return &expr.Ct{Key: expr.CtKeyPROTODST, Direction: 0, Register: reg}
}

// originalAddr is the destination address that it bore. In a table of family inet
// it takes all 16 octets of the register, of which IPv4 has the first four; the key
// for IPv4 alone (NFT_CT_DST_IP) the library writes without its direction.
func originalAddr(reg uint32) expr.Any {
	return &expr.Ct{Key: expr.CtKeyDST, Direction: 0, Register: reg}
}

func equal(reg uint32, data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}
}

func in(set *nftables.Set, reg uint32) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID}
}

func lookup(m *nftables.Set, from, to uint32) expr.Any {
	return &expr.Lookup{SourceRegister: from, DestRegister: to, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}
}

func iifname(set *nftables.Set) match { return match{meta(expr.MetaKeyIIFNAME, reg1), in(set, reg1)} }

func oifname(set *nftables.Set) match { return match{meta(expr.MetaKeyOIFNAME, reg1), in(set, reg1)} }

// notIn matches an interface that is not in the set.
func notIn(key expr.MetaKey, set *nftables.Set) match {
	return match{meta(key, reg1), &expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID, Invert: true}}
}

// ipv4 and ipv6 are what nft leaves unsaid when it says "ip saddr" or "ip6 saddr"
// in an inet table.
func ipv4(t *nftables.Table) match { return nfproto(t, unix.NFPROTO_IPV4) }

func ipv6(t *nftables.Table) match { return nfproto(t, unix.NFPROTO_IPV6) }

func nfproto(t *nftables.Table, family byte) match {
	if t.Family != nftables.TableFamilyINet {
		return nil
	}
	return match{meta(expr.MetaKeyNFPROTO, reg1), equal(reg1, family)}
}

func l4proto(proto byte) match { return match{meta(expr.MetaKeyL4PROTO, reg1), equal(reg1, proto)} }

// tcpOrUDP is more than the sets behind it need: nft cannot load "ct original
// proto-dst" or a translated port back without it.
func tcpOrUDP(set *nftables.Set) match { return match{meta(expr.MetaKeyL4PROTO, reg1), in(set, reg1)} }

func ctStatusDNAT() match { return ctBit(expr.CtKeySTATUS, ctDNAT) }

func ctBit(key expr.CtKey, bit uint32) match {
	return match{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bit), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

// ctDirection matches packets of one direction of their flow: 0 as it began, 1
// the answers.
func ctDirection(dir byte) match {
	return match{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1}, equal(reg1, dir)}
}

// setBits sets some bits of the packet's mark or priority, and leaves the others.
func setBits(key expr.MetaKey, bits, to uint32) match {
	return match{
		meta(key, reg1),
		&expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^bits), Xor: binaryutil.NativeEndian.PutUint32(to),
		},
		&expr.Meta{Key: key, SourceRegister: true, Register: reg1},
	}
}

func verdict(kind expr.VerdictKind, chain string) match {
	return match{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() match { return verdict(expr.VerdictAccept, "") }

func jump(to *nftables.Chain) match { return verdict(expr.VerdictJump, to.Name) }

// comment is a rule's comment as nft reads it.
func comment(text string) []byte { return userdata.AppendString(nil, userdata.TypeComment, text) }

// commentIn reads a comment from a rule's user data, or returns "". The library's
// own reader panics on data that is cut short, and other programs' rules are not
// ours to trust.
func commentIn(data []byte) string {
	for ; len(data) >= 2 && len(data) >= 2+int(data[1]); data = data[2+int(data[1]):] {
		if userdata.Type(data[0]) == userdata.TypeComment {
			text := data[2 : 2+int(data[1])]
			if n := len(text); n > 0 && text[n-1] == 0 {
				text = text[:n-1]
			}
			return string(text)
		}
	}
	return ""
}
