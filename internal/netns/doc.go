// Package netns makes network namespaces: real links, addresses, routes and sockets of
// the kernel, which end with the process at the latest. The doctor tries a packet in
// them, the lab and the tests play home networks.
//
// Owns: making a namespace and what runs in it, cables between two, what is on them, and
// running this program again as root of a user namespace.
//
// May import: vishvananda/netlink/nl and netns, x/sys/unix, the standard library; of ours
// enter and program alone, so that each package and its tests can use it. What fails a test is in
// netnstest, so that package testing stays out of the daemon.
//
// Never: named namespaces or anything else that outlives the process, another
// namespace than those it made or was given.
package netns
