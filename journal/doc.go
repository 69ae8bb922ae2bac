// Package journal keeps on disk what must outlive the daemon.
//
// Owns: the state directory: the identity that UPnP promises to keep (UUID,
// BOOTID), and the leases.
//
// May import: portmap, golang.org/x/sys/unix, and the standard library.
//
// Never: decides anything, or trusts what it reads: what could have been written
// by others is refused, what is damaged is said to be so and replaced, and what
// is restored has to be authorised again.
//
// # What is promised
//
// Record is called after the kernel has changed and before the client is
// answered. It makes one write(2). From then on:
//
//   - The death of the daemon, at any instant, loses nothing that was
//     acknowledged. The kernel is made to hold exactly what the journal says when
//     the daemon starts, so that nothing that was not recorded stays open.
//   - A loss of power costs what was recorded in the last second.
//   - Damage to the file can lose mappings and never brings one back, or a former
//     state of one: lines are numbered, and where one is missing in the middle,
//     all that was said before it counts no more. The one damage that
//     cannot be told is a file that ends too early: so it looks, too, when the
//     last line was not written to its end, or the power was lost after it.
//   - A disk that is full or broken is told to the caller, who goes on. The file
//     is marked as incomplete (its mode becomes 0400), and the whole is written
//     anew as soon as that is possible. What must not come back (an end, a
//     change) and cannot be written takes the old file with it.
//
// The file begins with its version. A version reads those before it, and writes its
// own from its start on; one that finds a later version restores nothing and says so,
// since what it cannot read may be an end.
//
// Text from outside is quoted; the file has mode 0600, for it holds the nonces of
// PCP. line.go says what a line is.
//
// # Clocks
//
// A lease's end is written on the clock that nobody can set, CLOCK_BOOTTIME. In
// the same run of the machine it is exact, whatever the time of day is made to
// be. Across a restart of the machine only the time of day tells how long it was
// off. It is believed when the kernel says that it is synchronised, now and when
// it was written down, and when it is not before the last line; otherwise the
// time off counts for nothing. Then a lease ends late by the time that the
// machine was off, but lasts no longer than granted while it ran (and ten minutes
// at most, the age of the last line). When the clock becomes right later, Overdue
// tells which leases are over by it.
//
// # Size and wear
//
// A mapping needs 230 to 450 bytes: 1,000 of them 0.3 MB, and the file never more
// than twice that, and 64 KiB. Memory is about as much.
//
// The disk is synced at most once a second, and not at all while nothing changes.
// A grant or a change writes one line of 230 to 450 bytes (1.1 kB with the worst
// description that UPnP can carry, 2.8 kB at the very most), an end 45, a renewal
// 55, the note of the time 75 bytes every ten minutes while there are leases. A
// mapping that is renewed in a loop costs a line in ten seconds; one that is
// changed in a loop, or whose lease is made longer and shorter by turns, a line
// each time, and for that limits.grants_per_second holds as for a new one. The file is written anew when more than half of it, and 64 KiB, no
// longer count, which doubles the bytes at most.
//
// Typical: 30 mappings, renewed every 20 minutes, write 130 kB a day; with the
// pages of the file system, 2 to 4 of 4 KiB for each sync, 20 to 35 MB a day.
// Worst, with the limits as shipped: a client that does nothing else has one change
// a second and 32 mappings to renew, each a line in ten seconds. With what is written
// anew that is 1.2 kB a second (0.1 GB a day), 6 kB with the longest lines there are
// (0.5 GB a day), in one sync a second, so that the pages of the file system are 0.7
// to 1.4 GB a day, from however many clients. An owner who lifts the limit on grants
// is left with that on requests.
package journal
