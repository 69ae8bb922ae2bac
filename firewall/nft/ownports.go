package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// An external port is its client's in both directions: who has no mapping of it does
// not leave from it. Otherwise what a peer sends to the mapping would come to that
// other host as the answer to its own flow, and what the client sends there would be
// dropped, because the flow is there already (the kind of CVE-2021-3773; two
// consoles of which one has no mapping do it by accident).
//
// A masquerade keeps the host's own port wherever it can. So what comes from a
// mapped number and not from the mapped endpoint is translated before it, to a port
// of the spare range, which no mapping has (firewall.Spare). A host's flows stay on
// one spare port as far as they can: without a flag for random ports, the kernel
// first tries the one that the endpoint has towards others.
//
// A masquerade may also choose a port itself, where two hosts send from one number
// to one peer, or where the owner wants random ones. It knows nothing of mappings,
// and after it no translation is left to do; so a flow that got a mapped port has
// its first packet dropped, and gets another port with the next. What may have got
// one has a sign on it from the chain before the masquerade to the one behind: a bit
// of the packet's priority, which nobody reads between the two, and by which no class
// of traffic control is numbered. (The flow's host cannot be looked up behind the
// masquerade: google/nftables writes "ct original ip saddr" without its direction,
// and the nft program cannot list "ct original saddr" in a concatenation.)
const othersSign = 1 << 30

// sign marks what is not a mapped endpoint's.
func sign() match { return setBits(expr.MetaKeyPRIORITY, othersSign, othersSign) }

// fromMapped matches what leaves from a number that is mapped.
func fromMapped(ports *nftables.Set) match {
	return match{meta(expr.MetaKeyL4PROTO, r0), port(offSport, r1), in(ports, reg1)}
}

// snatToSpare translates the source to the address in reg1 and a spare port.
func snatToSpare() match {
	return match{
		&expr.Immediate{Register: reg2, Data: portValue(firewall.SpareFirst)},
		&expr.Immediate{Register: reg3, Data: portValue(firewall.SpareLast)},
		&expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1,
			RegProtoMin: reg2, RegProtoMax: reg3, Specified: true,
		},
	}
}

// snatToKept translates the source to the address in reg1 and the port in reg2.
func snatToKept() match {
	return match{&expr.NAT{
		Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg2, Specified: true,
	}}
}

// spareRules are for what leaves by a WAN and not from a mapped endpoint. What a
// public subnet behind us sends is not translated, and in nobody's way.
func (s *skeleton) spareRules(b *chainBuilder, out *nftables.Chain) {
	b.rule(out, "what leaves from another's external port gets a spare one",
		oifname(s.wanIfaces), b.tcpOrUDP(), ipv4(s.table),
		match{addr(offSaddr, reg1), in(s.inside, reg1)}, fromMapped(s.mappedPorts),
		match{meta(expr.MetaKeyOIFNAME, reg1), lookup(s.wanSource, reg1, reg1)}, snatToSpare())
	b.rule(out, "its masquerade is looked at (own_ports)", oifname(s.wanIfaces), b.tcpOrUDP(), ipv4(s.table), sign())
}

// ownRules drop what was translated to a mapped port that is not its own.
func (s *skeleton) ownRules(b *chainBuilder) {
	own := b.base("own_ports", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, priorityOwn)
	check := b.plain("own_ports_check")
	b.rule(own, "a new flow whose port somebody else chose",
		match{
			meta(expr.MetaKeyPRIORITY, reg1),
			&expr.Bitwise{
				SourceRegister: reg1, DestRegister: reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(othersSign), Xor: make([]byte, 4),
			},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
		},
		jump(check))
	b.rule(check, "the sign is for us alone", setBits(expr.MetaKeyPRIORITY, othersSign, 0))
	b.rule(check, "a mapped port is its client's; with the next packet it gets another",
		b.tcpOrUDP(), ipv4(s.table),
		match{addr(offSaddr, reg1), in(s.wanAddrs, reg1)}, fromMapped(s.mappedPorts), verdict(expr.VerdictDrop, ""))
}
