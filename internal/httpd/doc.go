// Package httpd is the hardened HTTP server that stands before every handler of the
// daemon: everything is refused that no UPnP control point needs. It is apart from igd
// because it reads hostile input, and is fuzzed alone.
//
// Owns: which connections are accepted and for how long, how many one device may have,
// which requests reach a handler, how a reply is written.
//
// May import: the standard library, golang.org/x/time/rate, golang.org/x/sys/unix; of ours slog, crew,
// http1 and sockets.
//
// Never: knows a path, a service or a mapping. No proxy may stand in front of
// it: a connection has one request, and nothing behind it is read.
//
// What is decided here:
//   - Sixteen connections a device, because what polls in parallel needs a dozen, and
//     64 in all. They are read at once rather than in turn: a client that opens all
//     and uses the last one first would wait for itself. A client that finds no room
//     is told so (503, Retry-After), and its request is read and forgotten, because
//     closing a socket over unread data takes the answer with it.
package httpd
