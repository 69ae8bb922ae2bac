// Package accounts finds users and groups by their names, in /etc/passwd and /etc/group.
//
// Owns: User and Group.
//
// May import: the standard library, without os/user. It is a leaf.
//
// Never: asks a directory service, which os/user does not either in a program without C.
//
// What is decided here: os/user also finds out who runs the program, and where that user's home is.
// With text/tabwriter and os.ReadDir it was 33 kB (docs/performance.md).
package accounts
