// Package http1 reads and writes one HTTP/1.x message a connection, strictly: what two
// parsers could read in two ways is malformed. net/http would bring TLS, HTTP/2 and the
// tolerance that a guard must make harmless again.
//
// Owns: the octets of requests and responses (RFC 9112), the words for them that igd, gena
// and control share, and who makes room where there are too many connections (Doors).
//
// May import: the standard library, without net/http.
//
// Never: opens a socket, knows a path or who may ask.
//
// What is decided here, all of it allowed by RFC 9112:
//   - A line ends with CRLF; a bare LF or CR is malformed (section 2.2). miniupnpd
//     looks for CRLF CRLF as well, so no client that it serves sends anything else.
//   - A folded line is malformed (section 5.2), and so are white space before a colon,
//     a second Host, a second Content-Length even if equal (section 6.3).
//   - A Transfer-Encoding is for the caller to refuse: no body is read after one.
//   - One empty line before a request is ignored (section 2.2).
//   - A response ends with its connection.
package http1
