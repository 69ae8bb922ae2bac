// Package nft is the firewall backend for kernels with nf_tables: it keeps the
// table "inet portcullis" through google/nftables, without running a program.
//
// The table is a skeleton of rules that never changes and sets whose elements
// come and go, each with its own timeout (skeleton.go). So a packet costs the
// same with one mapping and with sixty thousand, a mapping ends in the kernel
// even when the daemon is dead, and a new WAN address changes three elements.
// Translated IPv4 ports and IPv6 pinholes stand in one table and change in one
// transaction.
// `nft list table inet portcullis` is meant to be read.
//
// A program opens a Backend, a firewall.Driver over the calls of kernel.go, hands it the
// the gateway (Configure) and of the mappings it has (Replace), and from then on of
// changes of either. Now and then it calls Audit, which also finds an accept chain that
// came back.
//
// What stays true whatever happens:
//
//   - One transaction or nothing. A change is one netlink batch; when the kernel
//     refuses it, neither the kernel nor the model has changed. A state that is
//     too large for one batch is written sets first and rules last, so it takes
//     effect at once too; when a part of it fails the table is removed, which
//     leaves nothing open, and what was there before is written again.
//   - An unknown outcome (timeout, ENOBUFS) is looked up in the kernel.
//   - When the kernel turns out not to hold what the model says (somebody flushed
//     the ruleset, or took an element away), the whole table is written anew.
//   - No chain here has a drop policy, and no table but ours is touched, save for
//     the chains that the owner names as accept_chain and accept_chain6 (accept.go), and
//     the one in which mappings are only listed (listing.go).
//   - An external port is its client's in both directions: nobody but the mapped
//     endpoint leaves from it (ownports.go), and what left from it before is ended.
//   - Of IPv6 only TCP and UDP to a pinned endpoint is accepted, from the WAN to a
//     LAN, and its answers. All else, ICMPv6 too, is the owner's to judge.
//   - The front's user (Facts.FrontUID) sends to the LANs alone (leash.go).
//
// Owns: the table inet portcullis, our chains and sets in the tables of the
// accept chains, a chain that lists mappings.
//
// May import: slog, portmap, firewall, firewall/flows, internal/enter, internal/frames, google/nftables,
// mdlayher/netlink, x/net/bpf, x/sys/unix, the standard library.
//
// Never: decides what may be mapped, runs a program, calls Flush outside
// commit.go, sends elements by itself outside bulk.go, touches a set, chain or rule
// it did not make.
//
// What is decided here:
//   - accept_chain is a chain and two sets of ours in the host firewall's table, and
//     one jump in its chain: a jump cannot leave its table, and a mark is a bit that
//     its rules may use. Each family has its part, its errors and its repair.
//   - Kept ports use snat with the WAN's address from a map, not masquerade:
//     google/nftables leaves out the flag without which the kernel ignores the port. A
//     new WAN address is one element.
//   - A masquerade keeps a host's own port, and so gave another host the port of a
//     mapping: what the peer sent to the mapping reached that host, and the owner's
//     flow was dropped. What comes from a mapped number and not from the mapped
//     endpoint leaves from one of 512 ports that are never mapped (29184 to 29695,
//     where no program is known to ask for one by name). A range of the kernel's
//     choosing could contain mapped ports, and one that is kept free by moving it
//     would be state; the price is that an exact request for one of these is a
//     conflict. A port that a masquerade chose itself is looked at behind it, and the
//     flow's first packet dropped if the port is mapped. Sources with a public address
//     are not translated, only looked at.
//   - Hairpin shows the outside (RFC 4787 REQ-9): the address that was sent to, and
//     from a mapped endpoint its external port. With the gateway's LAN address two
//     consoles would not recognise each other.
//   - fw4 may declare our part of its table itself (etc/nftables.d): a reload flushes
//     rules and keeps sets, so rules that come back with it lose nothing. Our rules
//     are written as the nft program writes them, so that fw4's are taken for ours.
//   - The last message of a transaction names the thread that made it. What is not
//     ours is followed by an audit of the rules, and of the mappings if our table was
//     touched.
package nft
