// Package sockets opens Internet sockets by addresses alone, with options that are set
// before the address is taken: what net.ListenConfig and net.Dialer do, without names. And it
// makes calls on sockets of which the runtime need not know, because they wait for nothing.
//
// Owns: TCP listeners, UDP sockets and TCP connections of package net that are bound
// before anything can come by them; the calls that are named Now.
//
// May import: the standard library, x/sys/unix. It is a leaf: of this program no other
// package.
//
// Never: looks up a name or a service; waits longer than its context.
//
// What is decided here:
//   - net.Dialer, net.ListenConfig, net.Dial and net.Listen accept names, so each brings the
//     resolver with a client of DNS (0.17 MB), which a gateway's daemon never wants to ask.
//     test/arch keeps them out of the program.
//   - What cannot wait is called without telling the runtime, on a request's way: the runtime
//     would wake a thread of its own for the first call after a rest, and take the processor
//     from a thread that the kernel has only set aside for whoever it woke. With one processor
//     for each half of the daemon that was half of a renewal. What may wait (a file on a disk,
//     the lock of nf_tables) is called as ever.
//   - Such a call must not find a descriptor that waits: the whole process would. O_NONBLOCK is of
//     the open socket and not of the descriptor, so the warden makes none on a socket that a front
//     has as well: the ends of the wall are two, and what it hands over it closes.
package sockets
