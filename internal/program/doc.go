// Package program runs other programs of the machine to their end.
//
// Owns: where a program is found, what it is given, and how much is read of what it says.
//
// May import: the standard library, without os/exec. It is a leaf.
//
// Never: runs a shell, looks for a program anywhere but in the absolute folders of PATH, leaves a
// program running behind its caller's context.
//
// What is decided here: os/exec copies between any reader and any writer, and with that brings what
// net and os can copy without looking at it, 0.1 MB in all. Here texts go in and come out.
package program
