// Package presence looks after the hosts that mappings lead to: a mapping is for the
// device that asked for it, and not for whoever has its address next.
//
// Owns: Keeper (which devices are there, which have left, whose address another one
// has; what that means for their mappings; which have ever answered).
//
// May import: the standard library, x/sys/unix; of ours slog, netif, pace and portmap.
//
// Never: grants anything, takes a MAC address from a packet, asks the network by itself
// (the kernel does, when told to).
//
// What is decided here:
//   - The kernel is asked about hosts with mappings every 20 seconds, and at once when
//     it reports that nobody answers: an address that has left its device loses its
//     pinholes within seconds, and a device that sleeps keeps them. After half an hour
//     without an answer DHCP may have given the address away.
//   - A host that came in this run and never answers loses its mappings after the
//     three questions that are asked anyway, not after half an hour.
package presence
