// Package identify says who asks: the host behind a connection or a datagram, as the
// kernel knows it, and never as it says itself.
//
// Owns: Identifier (which client an address or a frame stands for, whom requests are
// charged to, which addresses are of one device), and how often the owner hears of
// datagrams that somebody else sent.
//
// May import: the standard library, golang.org/x/time/rate; of ours slog, datagram, netif and
// portmap.
//
// Never: reads what a client wrote, decides what it may have.
package identify
