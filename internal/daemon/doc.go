// Package daemon runs the two halves of the gateway in their order, and tells them what the
// network looks like: the warden, which decides, and the front, which parses what the LANs
// send.
//
// Owns: Run, and what follows the network and tells its owner what keeps a LAN from being
// served.
//
// May import: errgroup; of ours config, warden, front, process, wall, sandbox, netif,
// doctor (whose answers go astray) and wiring.
//
// Never: parses what a client wrote, decides what policy decides, hands one half anything
// of the other that front.Warden and front.Sockets do not name.
package daemon
