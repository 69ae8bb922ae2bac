// Package iptables is the firewall backend for hosts whose rules live in
// iptables, or whose kernel has no nf_tables. It works with both flavours of the
// program: iptables-legacy and iptables-nft, for IPv4 and IPv6.
//
// It keeps chains of its own, all named PORTCULLIS-..., with one jump to each that
// is needed from a built-in chain:
//
//	nat    PREROUTING  last   PORTCULLIS-IN    to an address of ours: PORTCULLIS-MAP, a DNAT a hole
//	nat    POSTROUTING first  PORTCULLIS-OUT   PORTCULLIS-KEEP: kept ports; PORTCULLIS-HAIR and -BACK: hairpin
//	filter FORWARD     first  PORTCULLIS-FWD   PORTCULLIS-OPEN: what belongs to a mapping is accepted
//	filter INPUT       first  PORTCULLIS-GUARD our own ports are closed to all but the LAN
//
// In ip6tables there are FWD, with PORTCULLIS-PIN for pinholes, and GUARD.
// PORTCULLIS-ENDED resets for a minute what a host would carry on of a mapping
// that ended. An accept in FORWARD ends the filter table's work, so there is no
// accept chain: the jump, put before all rules that drop, is what a jump in the
// owner's chain would be. The last place in PREROUTING is on purpose: the owner's
// own forwards come first, and where one is appended our jump goes behind it.
//
// The promises of package nft, and what becomes of them here:
//
//   - Kept: a mapping ends in the kernel though the daemon is dead. iptables has no
//     timeouts, so each rule carries `-m time --datestop` in UTC, the lease plus a
//     minute, to the second. Unlike nft's timeouts it follows the wall clock: a
//     clock that is set is noticed by Audit within seconds and the rules are
//     written anew, but with the daemon dead a clock set back lengthens a lease and
//     one set forward ends it. Where the kernel has no xt_time the start says, once,
//     that mappings outlive a daemon that was killed. An expired rule stays listed
//     until the next start, and matches nothing.
//   - Kept: a change that fails leaves the mappings as they were. But by undoing it,
//     not by a transaction: iptables-restore is atomic for each table only. The order is IPv6's filter,
//     IPv4's filter, IPv4's nat: what translates, and so opens, comes last. Between
//     two of them, for milliseconds, a mapping may be half there; half of one lets
//     nothing in that the owner's own rules do not.
//   - Not kept: a packet that costs the same with any number of mappings. Rules are
//     looked at one after another: all packets of mapped flows pass half of them on
//     average, and a change writes all of our rules. MaxRules bounds it.
//   - Not kept at once: other programs' changes. iptables-legacy tells nobody of
//     them, so Watch looks every second (two short programs).
//   - Traffic is counted by the rules, both directions, and survives a rewrite but
//     for what passes in the milliseconds of it.
//
// Owns: the chains PORTCULLIS-* and the jumps to them.
//
// May import: portmap, firewall, firewall/flows, go-iptables,
// x/sys/unix, the standard library.
//
// Never: decides what may be mapped, runs a shell, hands a program text that came
// from a client, touches a rule or chain it did not make.
package iptables
