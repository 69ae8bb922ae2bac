package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// leashRules keep the process that parses the network from sending by anything but a LAN,
// by a socket of its own: to the Internet, or to services of the gateway by way of lo. The
// kernel has the user who made a socket, and not who uses it, so whoever makes some for that
// process does it as that user (sandbox.User.Make): that they are bound to their LAN is not
// enough, because IP_PKTINFO can name another interface.
func (s *skeleton) leashRules(b *chainBuilder) {
	leash := b.base("front_leash", nftables.ChainTypeFilter, nftables.ChainHookOutput, priorityLeash)
	b.rule(leash, "answers of the metrics' port, whose user may be the same; this begins no connection",
		match{meta(expr.MetaKeyOIFNAME, reg1), equal(reg1, ifnameKey("lo")...)}, l4proto(unix.IPPROTO_TCP), noFirstSegment(), accept())
	b.rule(leash, "the front of portcullis sends to the LANs alone",
		match{meta(expr.MetaKeySKUID, reg1), in(s.frontUser, reg1)}, notIn(expr.MetaKeyOIFNAME, s.lanIfaces),
		match{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}})
}

// noFirstSegment matches TCP but for the segment that begins a connection: SYN without ACK.
func noFirstSegment() match {
	const syn, ack = 0x02, 0x10
	return match{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{syn}},
	}
}
