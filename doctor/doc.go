// Package doctor finds what would keep a mapping from working, and says what to do
// about it.
//
// Owns: the findings and their remedies (Judge, which is pure), and the path check
// (Try): a copy of the host's ruleset in namespaces of its own, where a real packet
// goes through a real mapping.
//
// May import: portmap, firewall, firewall/nft (for the name of our table), the
// standard library but not net/http, google/nftables, vishvananda/netlink and netns,
// golang.org/x/sys/unix.
//
// Never: changes anything on the machine. What it tries it tries in namespaces that
// end with it.
package doctor
