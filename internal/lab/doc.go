// Package lab builds a whole home network out of network namespaces: a gateway
// with a bridge, hosts on the LAN, the Internet on the other side. `make
// lab` plays a story on it and shows what happened; the tests under test/ use
// the same network for theirs.
//
// Owns: namespaces, links, addresses of both families and the gateway's own
// firewall of such a network; small clients of UPnP, NAT-PMP and PCP; the story
// and its report.
//
// May import: vishvananda/netlink and netns, google/nftables (for the
// firewall that a real gateway has), x/net/ipv6 and x/sys/unix, the standard
// library. It starts the daemon as a process of its own, as the owner would; it
// uses no other room of ours but netns.
//
// Never: runs an external command of its own accord, or leaves anything behind:
// the namespaces have no names, so they end with the process that holds them,
// however it ends.
package lab
