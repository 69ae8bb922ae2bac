// Package webprocess runs the owner's page as a process of its own, which has nothing but
// the socket that it listens on, and the process that connects to the control socket for it.
//
// Owns: Run (the opener: what `portcullis web` is), Main (the page), and the few octets that
// pass between the two.
//
// May import: the standard library, x/sys/unix; of ours json, control, random, sandbox and web.
//
// Never: reads what passes between the page and the daemon; has the page open a file, a
// socket or a program.
//
// What is decided here:
//   - The page parses what browsers send. So it is a front to the kernel (sandbox.Front):
//     another user where we are root, no file, no new socket. That is also why it needs no
//     access to the control socket, whoever that belongs to.
//   - The opener has the right to connect, which may be root's, and reads one octet at a
//     time. Each connection to the daemon that the page asks for goes over by SCM_RIGHTS;
//     the daemon sees the opener's credentials on it. Who owns the page has what the owner
//     has at the control socket, and nothing else.
//   - The opener makes the words of sign-in links and prints them; the page gets their
//     hashes. What is printed on the owner's terminal is never the page's.
//   - Either ends with the other.
package webprocess
