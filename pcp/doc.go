// Package pcp is the gate in the two binary languages of UDP port 5351, NAT-PMP
// (RFC 6886) and PCP (RFC 6887 with DESCRIPTION, RFC 7220, and PORT_SET, RFC
// 7753), on one LAN interface in one IP family.
//
// Owns: the wire forms, the order of checks, the result codes that a Reason
// becomes, the epoch, the announcements, who is answered how often, and which
// options the socket on port 5351 needs.
//
// May import: the standard library but not net/http, golang.org/x/net/ipv4 and
// ipv6, golang.org/x/sys/unix, golang.org/x/time/rate, datagram and portmap.
//
// Never: knows UPnP or the firewall, decides what may be mapped (policy), keeps a
// mapping of its own, accepts what it cannot have enforced, or shows a nonce to
// anybody but who sent it.
package pcp
