// Package httpd is the hardened HTTP front that stands before every handler of
// the gate: net/http, with everything refused that no UPnP control point needs.
// It is a room of its own, apart from igd, because it parses hostile input and
// fuzzes alone.
//
// Owns: which connections are accepted and for how long, how many one device may have,
// which requests reach a handler, how a reply is written.
//
// May import: the standard library, golang.org/x/time/rate, golang.org/x/sys/unix.
//
// Never: knows a path, a service or a mapping. No proxy may stand in front of
// it: one request per connection is what makes net/http's tolerance harmless.
package httpd
