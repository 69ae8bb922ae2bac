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
	b.rule(leash, "the front of portcullis sends to the LANs alone",
		match{meta(expr.MetaKeySKUID, reg1), in(s.frontUser, reg1)}, notIn(expr.MetaKeyOIFNAME, s.lanIfaces),
		match{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}})
}
