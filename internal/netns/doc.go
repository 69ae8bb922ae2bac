// Package netns gives tests throw-away network namespaces: real links, addresses,
// routes and sockets of the kernel, which end with the test.
//
// Owns: making and entering a namespace, cables between two, the small sockets at
// their ends, and what a test does where namespaces or programs cannot be had.
//
// May import: vishvananda/netlink and netns, x/sys/unix, the standard library. No
// room of ours, so that the tests of each of them can use it.
//
// Never: named namespaces or anything else that outlives the test's process, waits
// for a time instead of an event, another namespace than those it made.
package netns
