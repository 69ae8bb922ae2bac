// Package netif is the gateway's own view of its network: which interfaces
// there are, which of them are the LAN and the WAN, what addresses and default
// routes they hold, who the neighbours are, and on which ports the gateway
// itself listens.
//
// Owns: State (the whole view, a value), Kernel (the held sockets that read
// it), Choose (the pure rule that turns a State and the owner's Settings into
// Roles), Ports (the gateway's own listeners).
//
// May import: the standard library, vishvananda/netlink/nl and netns, x/sys/unix; of ours
// enter, slog, sockets and special.
//
// Never: changes anything in the kernel, needs a privilege in production, acts
// on one notification's content (a notification is only a hint that something
// is to be read again), decides about mappings.
//
// Network namespaces: a netlink socket belongs to the namespace of the
// thread that created it, and the library's requests without one
// open a socket a call in whatever thread the goroutine happens to run on. So
// everything here goes through the sockets that a Kernel holds, and what can
// only be read as a file under /proc is read on a thread that has entered the
// Kernel's namespace. In production that is the namespace of the process, and
// nothing is entered.
//
// What is decided here:
//   - Of vishvananda/netlink the requests alone are used (nl). What the messages say is
//     read here: the library decodes every attribute of every kind of link and route,
//     which are 0.2 MB of program.
//   - Fewer interfaces are detected as LAN than are up with a private address: not the
//     bridges of containers, tunnels, ports of a bridge, or a physical uplink under a
//     VPN. The log says which were passed over, and that naming one serves it.
//   - What leads outside is no LAN by detection: an interface with a default route, a
//     part of one (wider than /8; for IPv6, wider than fc00::/7), or a route through a
//     gateway to public IPv4 addresses, in any table. Rules do not say which table is
//     in use: they change with a failover (mwan) or a tunnel (wg-quick). What was
//     outside a moment ago must not be a LAN now; so it is remembered until the daemon
//     stops. A gateway to private addresses, or to public IPv6 ones, is an inner
//     router. A learned address is a sign of another gateway, too. A LAN from which
//     some hosts are routed to a gateway inside it by a table of its own must be
//     named; then it is served, with a warning. Only the main table's default route
//     refuses a named one.
//   - What the kernel has said of a neighbour is remembered for a second, unless it
//     reports a change meanwhile, by a socket that is read before each use and wakes
//     nobody. Both halves ask with each request, three times in all, who has an address.
//   - A LAN has the families that it has addresses of. A named interface with IPv6
//     alone is served by IPv6; detection still wants a private IPv4 address, which is
//     what tells the inside from the outside.
package netif
