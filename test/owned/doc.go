// Package owned is a front whose every step another program decides: what an attacker has
// who runs code of his own in the process that parses the network. It enters the sandbox
// of every front, and then does what it is told to.
//
// Command portcullis below it is the daemon in everything, but that its front becomes one
// of these where a test waits for it.
package owned
