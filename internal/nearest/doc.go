// Package nearest finds the word that a mistyped one was meant to be, for "did you mean".
//
// Owns: how far a word may be from another and still be taken for it. Configuration keys,
// commands, flags and other words of ours go by the same measure.
//
// May import: the standard library. Pure: no clock, no I/O.
//
// Never: changes what is done. A word that is only near is still an error.
package nearest
