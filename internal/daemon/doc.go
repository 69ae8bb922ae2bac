// Package daemon runs the two halves of the gateway in their order, and tells them what the
// network looks like: the warden, which decides, and the front, which parses what the LANs
// send.
//
// Owns: Run, and what follows the network and tells its owner what keeps a LAN from being
// served; the reload of the configuration; what the supervisor hears.
//
// May import: errgroup, x/sys; of ours slog, config, warden, front, process, wall, sandbox, netif, pace,
// doctor (whose answers go astray), wiring, digest, control and portmap (what a reload
// answers).
//
// Never: parses what a client wrote, decides what policy decides, hands one half anything
// of the other that front.Warden and front.Sockets do not name.
package daemon
