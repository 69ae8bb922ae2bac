// Package journal keeps on disk what must outlive the daemon.
//
// Owns: the state directory: the identity that UPnP promises to keep (UUID,
// BOOTID). Leases on disk belong here too and come with a later version.
//
// May import: portmap, and the standard library.
//
// Never: decides anything, or trusts what it reads: a file that is damaged is
// said to be so and replaced.
package journal
