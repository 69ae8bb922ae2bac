// Package datagram is what the servers on UDP have in common: a socket on one
// LAN interface that says of each datagram where it came from, to which address,
// by which interface, and with which mark (Conn); which machine sent it, as somebody
// else finds out (Sender); a reader with a fixed number of buffers; an allowance
// for each machine and for all (Limits); and what is said of single datagrams (Log).
//
// Owns: control messages, the bounds on what is read ahead, who may be answered
// how often.
//
// May import: the standard library but not net/http, golang.org/x/net/ipv4
// and ipv6, golang.org/x/time/rate. No other room.
//
// Never: knows a protocol, a port, or what an answer says.
//
// What is decided here:
//   - Budgets are for machines, known by their frames, in three classes: hosts of the
//     link, hosts behind a router, strangers. A quarter more is for hosts that have
//     had nothing lately. 200 addresses of one machine are one machine, and forged
//     sources cost nobody but strangers.
package datagram
