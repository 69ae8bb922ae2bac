// Package cmdline reads a command line by a table of commands, and says from the same table
// how each is called: help, what is wrong with a call, and what a shell may complete.
//
// Owns: the form of a command line. Options stand anywhere, before the command and behind
// its arguments too; "--" ends them; what is mistyped is an error that names the nearest
// word.
//
// May import: internal/nearest.
//
// Never: runs a command, prints, or reads a file: it is pure.
package cmdline
