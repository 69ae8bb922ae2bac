// Package accounts finds users and groups by their names, in /etc/passwd and /etc/group.
//
// Owns: User and Group.
//
// May import: the standard library, without os/user. It is a leaf.
//
// Never: asks a directory service, which os/user does not either in a program without C.
//
// What is decided here: os/user finds out who runs the program, and where he is at home, before it
// looks for anybody else.
package accounts
