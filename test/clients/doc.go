// Package clients drives real control points against the daemon, on a network
// of namespaces. It is a module of its own, so that what it needs is no
// dependency of the program.
package clients
