// Package presence looks after the hosts that mappings lead to: a mapping is for the
// device that asked for it, and not for whoever has its address next.
//
// Owns: Keeper (which devices are there, which have left, whose address another one
// has; what that means for their mappings; which have ever answered).
//
// May import: the standard library, x/sys/unix; of ours netif and portmap.
//
// Never: grants anything, takes a MAC address from a packet, asks the network by itself
// (the kernel does, when told to).
package presence
