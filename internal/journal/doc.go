// Package journal keeps on disk what must outlive the daemon.
//
// Owns: the state directory: the identity that UPnP promises to keep (UUID,
// BOOTID), and the leases.
//
// May import: portmap, golang.org/x/sys/unix, and the standard library.
//
// Never: decides anything, or trusts what it reads: what could have been written
// by others is refused, and what is restored has to be authorised again.
//
// # The file
//
// A journal is lines of text, which line.go describes: a header, and then what
// happened, one line for each mapping that was granted, changed, renewed or ended.
// Read from the beginning they give the mappings that there are. A line has a
// checksum, its number, and how many lines were on the disk for certain when it was
// written. Text from outside is quoted; the file has mode 0600, for it holds the
// nonces of PCP.
//
// Record appends lines in one write(2), after the kernel has changed and before the
// client is answered. Run syncs the file at most once a second. When the file has
// become twice as long as it was, and 64 KiB more, all that counts is written to a new
// one, which takes its name when it is on the disk. Every start does that, too. A
// version reads the files of those before it, and writes its own.
//
// # Reading it
//
// What the lines say counts up to the first that is bad: its checksum or its number is
// not the one that must come, or it is none that this program writes. Then one rule
// decides whether they count at all:
//
//   - A process that is killed leaves a last line without its end, at most.
//   - A power cut also takes or spoils lines that were not on the disk yet, in any
//     order. No line after the bad one says that the bad one was on the disk.
//   - Anything else is damage. The bad line may have been the end of a mapping, so
//     nothing at all is restored: an error is logged, and a new epoch tells the clients
//     of PCP and NAT-PMP to ask again (RFC 6887 section 8.5).
//
// # What a fault costs
//
//   - The death of the daemon, at any instant: nothing that was acknowledged. At the
//     start the kernel is made to hold exactly what the journal says.
//   - A power cut: what was recorded in the last second. The epoch is a new one.
//   - A damaged file, or one of a later version: all mappings. Nothing that has ended
//     comes back, nor what a mapping was before it changed. The one damage that cannot
//     be told is a file that ends too early, since a power cut does the same.
//   - A disk that is full or broken: no mapping while the daemon lives; Record says so.
//     The file then lacks something and is marked: its mode becomes 0400, and a start
//     that finds it so begins a new epoch. An end or a change that cannot be written
//     takes the file with it. All is written anew as soon as the disk allows it.
//   - The file or the directory removed or replaced: nothing, if the daemon lives
//     another five seconds.
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
// A mapping needs 230 to 450 bytes, in the file and in memory. A grant or a change
// writes one such line (2.8 kB at the very most), an end 45 bytes, a renewal 55, at most
// one in ten seconds; the time is noted every ten minutes while there are leases. What
// is written anew at most doubles that. Typical are 30 mappings that are renewed every
// 20 minutes: 130 kB a day, and 20 to 35 MB with the pages that each sync of a file
// system takes. Clients that do nothing else than ask are held to one sync a second and
// 6 kB (limits.grants_per_second): 0.7 to 1.4 GB a day.
package journal
