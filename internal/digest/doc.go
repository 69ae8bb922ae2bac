// Package digest is SHA-256 (FIPS 180-4), of octets that are there as a whole.
//
// Owns: Sum, and Equal, which takes as long whatever differs.
//
// May import: encoding/binary and math/bits. Pure.
//
// Never: a key, a signature, a password: whoever needs those takes crypto.
//
// What is decided here: crypto/sha256 brings what FIPS 140 wants of a module (AES, GCM,
// SHA-3, a random generator, self-tests, 32 MB of memory that is reserved for its entropy):
// 0.13 MB of program. Here a digest compares two readings of a file, makes one UUID of
// another, and keeps a word of 24 random octets out of memory; none is on a request's way.
// The tests compare it with crypto/sha256.
package digest
