// Package front is the half of the daemon that parses what the network sends: the servers
// of every protocol on every LAN, and whom they speak to.
//
// Owns: Front (which servers a LAN has, what they are told of the network, and when their
// clients are), Warden and Sockets (all that crosses the wall to the half that decides).
//
// May import: the standard library; of ours slog, the packages of the protocols (ssdp, httpd, igd, gena,
// pcp, datagram), identify, listeners, netif and portmap.
//
// Never: knows the firewall, the policy, the configuration or the state directory; opens a
// socket or a file; keeps a mapping.
//
// What is decided here:
//   - All that crosses the wall is plain values, so that the two halves can be two
//     processes: requests, selectors, a few mappings, counters, times and open sockets.
package front
