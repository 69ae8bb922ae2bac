// Package homenet is for tests: a home behind a gateway, with a firewall backend
// on it, and what packets must find there whichever backend it is.
//
// A backend's own tests hand in how it is opened and how the owner of such a
// gateway writes rules (Firewall), and run the groups of this package: Packets,
// KeptPorts, PortShadow, DeleteEndsFlows, KernelEndsLease, Pinholes, Counters,
// GatewayServices, Leash, Drift.
// What is about one backend only is tested beside it, on the same Home.
//
// Owns: the home network of the backends' tests, what both promise of packets.
//
// May import: slog, portmap, firewall, netnstest, vishvananda/netlink, go-cmp,
// x/sys/unix, the standard library.
//
// Never: is linked into the program, knows a backend.
package homenet
