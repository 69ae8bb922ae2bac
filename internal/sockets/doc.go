// Package sockets opens Internet sockets by addresses alone, with options that are set
// before the address is taken: what net.ListenConfig and net.Dialer do, without names.
//
// Owns: TCP listeners, UDP sockets and TCP connections of package net that are bound
// before anything can come by them.
//
// May import: the standard library, x/sys/unix. It is a leaf: of this program no other
// package.
//
// Never: looks up a name or a service; waits longer than its context.
//
// What is decided here: net.Dialer, net.ListenConfig, net.Dial and net.Listen accept names,
// so each brings the resolver with a client of DNS (0.17 MB), which a gateway's daemon
// never wants to ask. test/arch keeps them out of the program.
package sockets
