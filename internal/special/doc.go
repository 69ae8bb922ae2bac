// Package special holds the ranges of IP addresses that are not ordinary ones.
//
// Owns: the one table of them, and the questions that it answers.
//
// May import: the standard library.
//
// Never: looks at the system.
package special
