// Package clients drives real clients of UPnP, NAT-PMP and PCP against the daemon,
// on a network of namespaces. It is a module of its own, so that what it needs is
// no dependency of the program.
//
// Each learns the external address where it can, maps, is listed under the protocol
// that it spoke, receives from the Internet, and unmaps. Some speak several
// protocols: then each is driven by itself. Settings of the daemon, or of the
// client, take the others away. Where a client remembers what it found, the daemon
// is restarted before the client takes its ports back.
//
// Programs of Debian are told to look for nobody: no chain is fetched, no seed is
// asked. async_upnp_client is from Debian 13, where the machine's own does not have
// it: test/install unpacks it here.
//
// Tailscale's library is here twice, each version in a program of its own; the
// newer one is built with the Go that it asks for, which the go command fetches.
//
// Not here: clients that Debian, Go's modules and npm do not have.
package clients
