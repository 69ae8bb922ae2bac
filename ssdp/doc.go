// Package ssdp is UPnP discovery on one LAN interface in one IP family: it answers
// searches and advertises the device it was told about (UDA 2.0 section 1).
//
// Owns: the wire form of searches, search responses and notifications; the
// table of what may be searched for; the announcement schedule; how often and
// how fast answers go out; which options the socket on port 1900 needs.
//
// May import: the standard library but not net/http, golang.org/x/net/ipv4
// and ipv6, golang.org/x/sys/unix, golang.org/x/time/rate, and datagram.
//
// Never: knows what the device does (portmap, igd), serves the description it
// points at, parses anything but a search, puts text of a client into an answer,
// or answers a host that is not on the link. What goes out is made of the
// caller's own strings.
package ssdp
