// Package sandbox takes from this process, on every thread, what it does not need any
// more: capabilities, files, system calls, core dumps, and the sight of others.
//
// Owns: Enter, State (what is in force, as the kernel says), the roles (roles.go: what
// each may ask of the kernel, and why), and the numbers of system calls for every
// processor that the program is built for.
//
// May import: the standard library, golang.org/x/net/bpf, golang.org/x/sys/unix,
// landlock-lsm/go-landlock; of ours accounts alone.
//
// Never: knows mappings, protocols or the configuration; ends the program because the
// kernel lacks a means; gives back what it has taken.
//
// What is decided here:
//   - Capabilities belong to a thread, and Go has many. syscall.AllThreadsSyscall reaches
//     them all, in a program without cgo. A filter of seccomp is put on all of them by the
//     kernel (SECCOMP_FILTER_FLAG_TSYNC), and comes last.
//   - What a filter does not name fails with EPERM, which Go reports as an error. Only a
//     call by another processor's numbers (i386 or x32 on amd64) ends the process.
//   - A filter sees the numbers that a call is made with, and no memory: not the path of
//     openat, which is Landlock's to judge, and on i386, where socketcall has its arguments in memory, not the family of a
//     socket.
//   - Two processes make spare threads before their filter is on: Go ends a program that cannot
//     make a thread which it needs, so that whoever uses up threads would end it (threads.go).
//   - Programs that a process starts are under its filter. What those of iptables call is
//     theirs to choose, so that role names what is refused, and the others what is allowed.
package sandbox
