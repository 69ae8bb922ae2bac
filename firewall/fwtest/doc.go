// Package fwtest is for tests: a Fake firewall for the packages above the
// backends, and Conformance, the cases that every backend must pass, the Fake
// included.
//
// Owns: the meaning of Apply and Replace, written as tests.
//
// May import: slog, portmap, firewall, go-cmp, the standard library.
//
// Never: is linked into the program, knows a backend.
package fwtest
