// Package netns makes network namespaces: real links, addresses, routes and sockets of
// the kernel, which end with the process at the latest. The doctor tries a packet in
// them, the lab and the tests play home networks.
//
// Owns: making and entering a namespace, cables between two, what is on them, and
// running this program again as root of a user namespace.
//
// May import: vishvananda/netlink and netns, x/sys/unix, the standard library. No
// package of ours, so that each of them and its tests can use it. What fails a test is in
// netnstest, so that package testing stays out of the daemon.
//
// Never: named namespaces or anything else that outlives the process, another
// namespace than those it made or was given.
package netns
