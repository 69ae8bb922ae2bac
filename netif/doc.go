// Package netif is the gateway's own view of its network: which interfaces
// there are, which of them are the LAN and the WAN, what addresses and default
// routes they hold, who the neighbours are, and on which ports the gateway
// itself listens.
//
// Owns: State (the whole view, a value), Kernel (the held sockets that read
// it), Choose (the pure rule that turns a State and the owner's Settings into
// Roles), Ports (the gateway's own listeners).
//
// May import: the standard library, vishvananda/netlink and netns, x/sys/unix.
// It is a leaf: no other room of this program.
//
// Never: changes anything in the kernel, needs a privilege in production, acts
// on one notification's content (a notification is only a hint that something
// is to be read again), decides about mappings.
//
// Network namespaces: a netlink or inet socket belongs to the namespace of the
// thread that created it, and the package-level functions of vishvananda/netlink
// open a socket a call in whatever thread the goroutine happens to run on. So
// everything here goes through the sockets that a Kernel holds, and what can
// only be read as a file under /proc is read on a thread that has entered the
// Kernel's namespace. In production that is the namespace of the process, and
// nothing is entered.
package netif
