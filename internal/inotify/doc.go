// Package inotify has the kernel tell that files have changed (inotify(7)), so that nobody
// wakes to look at them for nothing.
//
// Owns: the descriptor, and which of its events are about a file that was named.
//
// May import: the standard library, x/sys/unix.
//
// Never: reads a file, or says what has happened to it: who was told looks.
package inotify
