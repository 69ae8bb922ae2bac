// Package ssdp is UPnP discovery on one LAN interface in one IP family: it answers
// searches and advertises a device (UDA 2.0 section 1).
//
// Owns: the wire form of searches, search responses and notifications; the
// table of what may be searched for; the announcement schedule; how often and
// how fast answers go out; which options the socket on port 1900 needs.
//
// May import: slog, the standard library but not net/http, golang.org/x/sys/unix, and
// internal/datagram.
//
// Never: knows what the device does (portmap, igd), serves the description it
// points at, parses anything but a search, puts text of a client into an answer,
// or answers a host that is not on the link. What goes out is made of the
// caller's own strings.
//
// What is decided here:
//   - Discovery over IPv6 has two scopes in one server, the link and the site, each
//     with an address, an appearance and a BOOTID of its own. A client that searched
//     from a link-local address is told one, others a global one, or a unique local
//     one where there is none: a connection to a unique local address comes from one,
//     and can then open no pinhole for its global address. All are shown version 2:
//     consoles, which ignore it, do not search by IPv6, and miniupnpc searches for
//     version 1 and wants pinholes.
//   - Searches are not bound to their frames, which only count for the machine that
//     sent them: an answer changes nothing, and hosts whose frames come from another
//     address than they answer ARP with find the gateway that way, and UPnP.
package ssdp
