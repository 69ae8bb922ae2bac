// Package json writes and reads JSON (RFC 8259) for our own structs, by the tags and the rules of
// encoding/json, of which this is the part that we use.
//
// Owns: what is JSON, how deep it may be, and what of it fits a struct.
//
// May import: the standard library, without encoding/json. It is a leaf.
//
// Never: reads more than one value, goes on behind what is not JSON, does I/O but by the reader
// that it is given.
//
// What is decided here:
//   - encoding/json and log/slog, which brings its encoder, were 0.2 MB of the program. What is
//     written here is octet for octet what encoding/json writes, and what is read here that reads
//     alike: fuzz targets hold it to that.
//   - It is narrower: a name counts by its very letters, and once in an object; there are no
//     floating-point numbers, no values of unknown types, no octets in base64, and 64 levels.
//   - MarshalText and UnmarshalText are called, MarshalJSON and UnmarshalJSON are not.
//   - A field of an embedded struct stands in its place; no name may be there twice.
package json
