// Package listeners keeps the sockets by which the LANs are served: for each LAN, IP
// family and, where a server needs one of its own, address there is a listener with the
// servers of every protocol, all of them or none.
//
// Owns: Set (which listeners are open; opening, moving and closing them as the network
// changes), Key, Server.
//
// May import: the standard library; of ours netif and slog.
//
// Never: knows a protocol, reads a packet, chooses a LAN.
package listeners
