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
// A program opens a Backend, a firewall.Driver over the calls of kernel.go, tells it of
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
//     the chains that the owner names as accept_chain and accept_chain6 (accept.go).
//   - An external port is its owner's in both directions: nobody but the mapped
//     endpoint leaves from it (ownports.go), and what left from it before is ended.
//   - Of IPv6 only TCP and UDP to a pinned endpoint is accepted, from the WAN to a
//     LAN, and its answers. All else, ICMPv6 too, is the owner's to judge.
//
// Owns: the table inet portcullis, our chains and sets in the tables of the
// accept chains.
//
// May import: portmap, firewall, firewall/flows, google/nftables,
// mdlayher/netlink, x/sys/unix, the standard library.
//
// Never: decides what may be mapped, runs a program, calls Flush outside
// commit.go, touches a set, chain or rule it did not make.
package nft
