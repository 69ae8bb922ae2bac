// Package leasefile shows the mappings where programs look that were made for miniupnpd: in
// its lease files, and by whoever shows rules, and closes what the owner takes out of these
// files, as the page of OpenWrt (luci-app-upnp) does.
//
// Owns: the lines of both files and what they have of a mapping, when they are written, and
// which mappings somebody has deleted there.
//
// May import: slog, portmap, internal/inotify, the standard library, x/sys/unix.
//
// Never: opens anything because of what a file says, believes one that another user may have
// written, writes where another user could replace the file, or follows a symbolic link that
// another user has made.
//
// The sandbox is opened for the directory of a lease file, with all that is below it. Landlock has
// rights for a file as well, but not for one that is to be made, nor for the one that sed puts in
// its place. So a directory in which the system has one of its own, from which root takes what
// to run, has no lease file (Usable); the sandbox is not opened for it either.
//
// # Deletions
//
// That page deletes the mapping of row N by `sed -i Nd FILE`, and restarts the daemon without
// waiting. So a line that is gone is a mapping that the owner closes: while the daemon runs
// and at its start, and also where it waits for its LAN (restore.Keeper.End), so that nothing
// need be remembered. What was in the file is known of the run that wrote it, by a copy beside
// it (FILE.written), written before the file: without it, or with the copy of an earlier run of the machine, a missing
// line says nothing. So these close nothing: a file that is not there, as after a start of the
// machine, one that a power failure has cut, and a mapping that was granted and not yet written.
//
// Somebody may read the file, the daemon write it, and he put what he has read less a line in
// its place. So the last few versions are known, in the copy too. A file may have been made of
// each that was there five seconds before it was written, and a line counts as deleted if it is
// gone from all of these. The price is that a line which came in these seconds, and alone was
// deleted, stays: that file is the version before.
//
// Only a file that is what was written less some lines counts, and one of root's or of the
// daemon's own user, in which nobody else may write. Whatever else is there is replaced, once nobody has written to it for a
// second. The daemon writes by exchanging the names of two files, and looks at what it got for
// its own: so it cannot write over a deletion.
package leasefile
