// Package frames reads which machine sent a datagram, from a socket that shows it: by the
// mark that a rule of ours put on it, or by a packet socket beside it
// (firewall/witness/doc.go says how either is made ready, and why).
//
// Owns: Socket (which a process can pass to another), what a mark means, what is
// remembered of frames.
//
// May import: datagram, x/sys/unix, the standard library.
//
// Never: opens a socket, asks for a privilege, knows a protocol, a mapping or a neighbour.
package frames
