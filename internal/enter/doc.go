// Package enter runs a function in another network namespace than the process's own, on
// a thread that ends with it. In production there is none, and nothing is entered; it is
// for tests, the doctor and the lab, whose kernels are read by the same code.
//
// Owns: In and OnThread.
//
// May import: x/sys/unix, the standard library. It is a part of the front, so that it
// knows nothing of programs, files or how a namespace is made (internal/netns).
//
// Never: makes a namespace.
package enter
