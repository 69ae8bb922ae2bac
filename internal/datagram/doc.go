// Package datagram is what the servers on UDP have in common: the loop that receives
// datagrams, keeps the addresses of the interface, and calls a protocol's Handler
// (Server); a socket on one LAN interface that knows of each datagram where it came
// from, to which address, by which interface, and with which mark (Conn); which machine
// sent it, as somebody else finds out (Sender); an allowance for each machine and for
// all (Limits); and log lines about single datagrams (Log).
//
// Owns: socket options, control messages, the bounds on what is read ahead, which
// addresses may be answered, who may be answered how often.
//
// May import: the standard library but not net/http, golang.org/x/sys/unix,
// golang.org/x/time/rate. Of ours
// slog, sockets and special alone.
//
// Never: knows a protocol, a port, or what an answer contains.
//
// What is decided here:
//   - Budgets are for machines, known by their frames, in three classes: hosts of the
//     link, hosts behind a router, strangers. A quarter more is for hosts that have
//     had nothing lately. 200 addresses of one machine are one machine, and forged
//     sources cost nobody but strangers.
package datagram
