// Package iptables is the firewall backend for hosts whose rules live in iptables, of
// either flavour, iptables-nft and iptables-legacy, for IPv4 and IPv6.
//
// What is mapped stands in the table of firewall/nft, as with any other firewall: the
// kernel translates by both side by side, and the owner's own forwards come first. It
// marks the packets of mappings while they are forwarded (firewall/nft/marks.go). In
// the tables of iptables there is one rule a family, in FORWARD, before all rules that
// drop:
//
//	iptables  -m conntrack --ctstate DNAT -m mark --mark X/X -j ACCEPT
//	ip6tables -m mark --mark X/X -j ACCEPT
//
// There is no chain of ours: `iptables -X` fails as long as any chain has a rule in
// it or leads to one, whoever made it, and with it the reload of a firewall that
// empties the built-in chains first. A rule with a built-in target is in nobody's way.
// The programs of iptables write it, so that its tables hold nothing that they do not
// know.
//
//   - A mapping costs the kernel and the daemon the same in any number, and no
//     program is run for it.
//   - iptables-nft tells of its changes as nftables does, and so an audit runs no program
//     where nothing was told, but each ten minutes, and with miniupnpd.chain in the nat table
//     one at each audit, which reads the chain. iptables-legacy tells nobody, but takes
//     a lock for each change, a file: the kernel tells of its use, and Watch looks, once a
//     second at most. Each minute's audit looks as well, for whoever has no such lock: old
//     versions, and containers with a /run of their own. Where there is no such file, Watch
//     looks each second.
//   - The lock is the whole machine's, whichever network it is taken for. So a look asks the
//     kernel for the table, as the programs of iptables-legacy do, and runs one of them
//     only where it is another than before (shown.go). What the entries say is left to
//     the programs: each of their modules knows its own.
//   - Some versions of iptables-legacy fail without -w while another holds that lock.
//     So the rule is written when others have stopped changing rules, in a millisecond.
//
// Owns: these two rules, by their comment.
//
// May import: slog, portmap, firewall, firewall/nft, enter, inotify, program, x/sys/unix, the standard
// library.
//
// Never: decides what may be mapped, runs a shell, hands a program text that came
// from a client, makes a chain that the owner has not named, touches a rule that it did
// not make.
//
// What is decided here:
//   - The mark is the packet's, and lives in the forward hook alone (priority -1 to
//     11; the filter of iptables is 0). A mark of the connection would stay with flows
//     whose mapping has ended, be seen by routing and shaping that restore it, and in
//     IPv6, where nothing says "translated", open to whoever else sets it. As it is,
//     the bit is cleared on every forwarded packet and set for what is mapped at that
//     moment; the other bits stay.
//   - The kernel must have nf_tables. Rules of iptables for each mapping would serve
//     kernels that were built without it: leases by the wall clock, a list that each
//     packet walks, four programs run for a change.
//   - accept_chain may be FORWARD of the filter table, which gets the same rule in
//     place of a jump. Other chains of iptables' tables are refused. A chain of nftables
//     gets its jump beside the rules in FORWARD: both may drop on one host.
package iptables
