// Package soap is the SOAP 1.1 envelope of UPnP control, as a server needs it:
// decode one action, encode one reply or fault, and the lexical rules of the
// simple types that UPnP's arguments use.
//
// Owns: the shape of requests and replies on the wire, and every bound on what
// a client may send.
//
// May import: the standard library.
//
// Never: knows a service, an action or an argument by name, or does any I/O.
//
// What is decided here:
//   - An argument may have 1 kB, because real descriptions are long.
package soap
