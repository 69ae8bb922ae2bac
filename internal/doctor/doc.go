// Package doctor finds what would keep a mapping from working, and what to do
// about it.
//
// Owns: the facts about the machine (Examine; Strays, whose answers leave by another
// way), the findings and their remedies (Judge, which is pure), and the path checks: a
// copy of the host's ruleset in namespaces of its own, where a real packet goes through a
// real mapping (Try) and hosts on each LAN ask the gateway (TryAsks).
//
// May import: slog, config, check, control, firewall and its backends, internal/wiring, netif, netns, program,
// random, sockets and portmap of ours; the standard library but not net/http, google/nftables,
// golang.org/x/sys/unix.
//
// Never: changes anything on the machine. What it tries it tries in namespaces that
// end with it.
//
// What is decided here:
//   - What nft and the programs of iptables list is loaded into a namespace with
//     interfaces of the same names and addresses, and our rules are put there with a
//     mapping. Where the packet does not arrive, all base chains of others get a jump to
//     accept at their head, and one after the other loses it again: so all that drop it are
//     found at once, and none that does not (blame.go). Reading rules would be guessing.
//   - What the configuration lacks is told from a second trial without any of it: the
//     remedy is the same wherever the owner comes from, and leads nobody in a circle.
//   - The daemon's own configuration is judged where one runs (daemon.go).
//   - DHCP servers are asked by DHCPINFORM, which takes no address from anybody.
//   - Answers that leave by another way are judged here, and refuse no grant: the
//     kernel can be asked for the route of a packet without a mark only, and mwan, pbr
//     and wg-quick restore one from the connection. The copy of the rules puts its
//     mark on a real answer.
package doctor
