// Package logging is what the owner reads: how the log is written, what the engine's
// events look like in it, and how much of it there may be.
//
// Owns: New (the log; lines of a network that keeps changing are left out and counted),
// Events (the engine's events as lines; a minute for each device and reason it is
// refused).
//
// May import: the standard library, golang.org/x/time/rate; of ours slog, config and portmap.
//
// Never: decides anything, leaves out a line about a mapping that was opened or closed.
//
// What is decided here:
//   - Repeated lines about the network are dropped by their message, in the log's handler,
//     when there are more than sixty without a quiet minute; a summary a minute has their
//     number and the last. The package that logs cannot bound them, because each flap
//     makes it anew.
//   - There is no socket to syslog. A connected one is of no use when syslogd has been
//     started again, and the sandbox lets no other be made; one that names its peer with
//     each line would reach every daemon that listens on such a socket. logger(1) reads
//     the priorities from our lines instead.
package logging
