// Package httpd is the hardened HTTP front that stands before every handler of
// the daemon: net/http, with everything refused that no UPnP control point needs.
// It is a package of its own, apart from igd, because it parses hostile input and
// fuzzes alone.
//
// Owns: which connections are accepted and for how long, how many one device may have,
// which requests reach a handler, how a reply is written.
//
// May import: the standard library, golang.org/x/time/rate, golang.org/x/sys/unix.
//
// Never: knows a path, a service or a mapping. No proxy may stand in front of
// it: one request per connection is what makes net/http's tolerance harmless.
//
// What is decided here:
//   - Sixteen connections a device, because what polls in parallel needs a dozen, and
//     64 in all. They are read at once rather than in turn: a client that opens all
//     and uses the last one first would wait for itself. A client that finds no room
//     is told so (503, Retry-After), and its request is read and forgotten, because
//     closing a socket over unread data takes the answer with it.
package httpd
