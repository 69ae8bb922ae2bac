// Package journal keeps on disk what must outlive the daemon.
//
// Owns: the state directory: the identity that UPnP promises to keep (UUID,
// BOOTID), and the log of the leases.
//
// May import: json, slog, portmap, internal/pace, random, golang.org/x/sys/unix, and the standard library.
//
// Never: decides anything, or trusts what it reads: what could have been written
// by others is refused, and what is restored has to be authorised again.
//
// # The log
//
// The log is lines of text, which line.go describes: a snapshot of the mappings, and
// then a line for each that was granted, changed, renewed or ended. A line has a
// checksum and a number. Text from outside is quoted; the file has mode 0600, for it
// holds the nonces of PCP.
//
// Record appends lines in one write(2), after the kernel has changed and before the
// client is answered. Run syncs the file at most once a second; each line says how many
// were on the disk before it (the checkpoint). When the file is twice as long as its
// snapshot and 64 KiB more, and at each start, a new snapshot takes its place. Record
// waits meanwhile: 12 ms with 1,000 mappings, and 100 ms with 20,000 (BenchmarkRewrite
// on ext4, two cores), too little to write both files at once.
//
// # Reading it
//
// A bad line, whose checksum, number or form is not the one that must come, ends the
// log: nothing after it counts. If it is in the tail, what comes before is restored.
// Anywhere else nothing at all is, because it may have been the end of a mapping: an
// error is logged, and a new epoch tells the clients of PCP and NAT-PMP to ask again
// (RFC 6887 section 8.5). The tail is what an interruption can leave unwritten:
//
//   - of a process that is killed, a last line without its end;
//   - of a machine that loses power, also the lines after the last checkpoint, in any
//     order. A line in the tail may be whole after one that is bad.
//
// # What a fault costs
//
//   - The death of the daemon, at any instant: nothing that was acknowledged.
//   - A power cut: what was recorded in the last second. The epoch is a new one.
//   - A damaged file, or one of a later version: all mappings. Nothing that has ended
//     comes back, nor what a mapping was before it changed. A file that ends too early
//     looks like a torn tail, and counts as one.
//   - A disk that is full or broken: no mapping while the daemon lives; Record says so.
//     A log that lacks a grant has mode 0400, which needs no room to say, and so the
//     next start begins a new epoch. One that lacks an end or a change is removed. It is
//     written anew as soon as the disk allows.
//   - The file or the directory removed or replaced: nothing, if the daemon lives
//     another ten seconds.
//
// # Clocks
//
// A lease's end is written on the clock that nobody can set, CLOCK_BOOTTIME, and is
// exact in the same run of the machine. Across a restart of the machine only the time of
// day tells how long it was off. It is believed when the kernel says that it is
// synchronised, now and when it was written down, and when it is not before the last
// line; otherwise the time off counts for nothing, and a lease ends late by that and the
// age of the last line (ten minutes at most). Overdue tells which leases are over when
// the clock becomes right later.
//
// # Size and wear
//
// A mapping needs 230 to 450 bytes, a line for a renewal or an end about 50. With 30
// mappings that are renewed every 20 minutes 130 kB a day are written, and 20 to 35 MB
// with the pages that each sync takes; clients that do nothing else than ask are held to
// 0.7 to 1.4 GB a day (limits.grants_per_second).
package journal
