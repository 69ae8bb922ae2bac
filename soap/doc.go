// Package soap is the SOAP 1.1 envelope of UPnP control, as a server needs it:
// decode one action, encode one reply or fault, and the lexical rules of the
// simple types that UPnP's arguments use.
//
// Owns: the shape of requests and replies on the wire, and every bound on what
// a client may send.
//
// May import: internal/xml1.
//
// Never: knows a service, an action or an argument by name, or does any I/O.
//
// What is decided here:
//   - An argument may have 1 kB, because real descriptions are long.
//   - What is well-formed is internal/xml1's business; which of it no control point sends,
//     and two programs could read in two ways, is refused here.
package soap
