// Package netnstest provides tests with network namespaces that end with the test.
//
// Owns: netns for tests, where an error ends the test; the small sockets at the ends
// of a cable, and what a test does where namespaces or programs cannot be had.
//
// May import: netns, vishvananda/netlink and netns, the standard library. Only tests import it.
//
// Never: anything that outlives the test, waits for a time instead of an event.
package netnstest
