// Package random is the kernel's random generator (getrandom(2)).
//
// Owns: Fill and Text.
//
// May import: the standard library, x/sys/unix. It is a leaf.
//
// Never: a generator of its own, an error: without random octets no secret can be made,
// and the program ends. Before the kernel has gathered enough at its start, it waits.
//
// What is decided here: crypto/rand reads the same, with a second generator for FIPS 140
// and math/big beside it (internal/digest/doc.go).
package random
