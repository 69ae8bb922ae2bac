// Package background keeps a daemon in the background, for an init script that expects it to
// leave the foreground by itself, as miniupnpd does.
//
// Owns: the process that stays beside the daemon (Main), and its start (Launch): it hands the
// daemon's log to syslog, has its number in the pid file, passes signals on, and removes the
// file when the daemon has ended.
//
// May import: the standard library, golang.org/x/sys/unix; of ours sandbox.
//
// Never: reads a configuration, restarts the daemon, or opens a socket to the network.
//
// What is decided here:
//   - A Go program cannot fork(2) and go on, so that the daemon is started anew. It is a child of
//     the process that stays, because its own sandbox lets it neither connect to a syslogd that
//     was started again nor remove a file in a directory that is not its own.
//   - The process that stays drops its capabilities, but not its user, whose files and whose
//     daemon these are. When it is killed, the daemon ends as by SIGTERM.
//   - Who started it waits until the daemon serves, and ends with its error where it does not.
//     The daemon says so by the descriptor that it is given: whoever is on the machine could
//     send to a socket with a name.
package background
