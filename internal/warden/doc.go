// Package warden is the half of the daemon that decides, and holds what the other half
// must not: the engine with its policy, the firewall, the state directory, presence, the
// administrator's socket, and the right to open sockets on a LAN.
//
// Owns: Warden (its parts wired, in which order they begin and end), the claim to be the
// only one of its network namespace, and how the sockets of the LANs are opened,
// and to which hosts there is connected.
//
// May import: the standard library, errgroup, x/time/rate; of ours json, slog, config, sockets, special,
// wiring and what it wires; of ssdp, pcp, httpd and gena how their sockets are opened.
//
// Never: parses what a client wrote, knows the front.
package warden
