// Package pcp serves the two binary protocols of UDP port 5351, NAT-PMP (RFC 6886)
// and PCP (RFC 6887 with DESCRIPTION, RFC 7220, and PORT_SET, RFC 7753), on one LAN
// interface in one IP family.
//
// Owns: the wire forms, the order of checks, the result codes that a Reason
// becomes, the epoch, the announcements, how often hosts are answered, and which
// options the socket on port 5351 needs.
//
// May import: slog, the standard library but not net/http, golang.org/x/sys/unix,
// internal/datagram and portmap.
//
// Never: knows UPnP or the firewall, decides what may be mapped (policy), keeps a
// mapping of its own, accepts what it cannot have enforced, or shows a nonce to
// anybody but who sent it.
//
// What is decided here:
//   - Port 5351 is open on the wildcard address of the LAN device, not on the LAN
//     address: a request to the external address must meet silence (RFC 6886 section
//     3), and the kernel would answer it with an ICMP error. The port is not shared
//     with another program, as 1900 is: of two gateways on one machine one lies.
//   - A request of a host without a neighbour entry waits for it, 310 ms at most and
//     16 at once. UDP needs no handshake, so the kernel may have forgotten the sender;
//     a mapping without a MAC would belong to whoever takes the address next.
//   - One epoch for NAT-PMP and PCP and for all LANs, but one for each family: another
//     external IPv4 address takes no pinhole away, and a new prefix no translated
//     port. It starts anew with the daemon, unless nothing was lost, and with another
//     external address, not when the address comes back.
//   - Announcements put NAT-PMP before PCP: npm's nat-pmp takes the first datagram at
//     its port for the reply it waits for. Those of IPv6 leave from the link-local
//     address, which is the router that hosts know.
//   - A MAP renewal finds the mapping by its internal port, by whatever protocol it
//     was made (RFC 6887 section 11.3), but not one that another protocol restricted
//     to certain hosts: a client that names no filter would believe itself open.
//   - A lease is 24 hours at most, a PORT_SET 64 ports.
//   - Requests of different hosts go to the engine at once, 64 at most, as many as one
//     kernel transaction has; those of one host one after the other. One device has 32
//     in line at most, so that behind a slow firewall the others come with the next
//     transaction.
package pcp
