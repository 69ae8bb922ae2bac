// Package dhcp reads from the files of DHCP servers what hosts are called.
//
// Owns: the lease files of dnsmasq, odhcpd, ISC dhcpd and Kea (memfile), and the
// one question which name a host has.
//
// May import: slog, portmap, internal/inotify, internal/pace, golang.org/x/sys/unix and the standard library.
//
// Never: writes, follows a symbolic link, waits in a request, or takes a name for
// an identity. The parsers do no I/O.
//
// # What a name is worth
//
// A host tells the DHCP server its name, and nobody checks it: names are for people
// and for the owner's "host:" rules, and any host can take any name. What is checked
// is that the server gave the lease to the MAC, and the address, that the neighbour
// table shows for the host. A host behind another router is seen with that router's
// MAC and has no name here.
//
// An IPv4 host has the name of the lease of its address. An IPv6 host has that too,
// or else, because most addresses of IPv6 are in no lease, the name that its MAC has
// in a lease for IPv4: one rule holds for both families.
//
// # Bounds
//
// A file has at most 1 MiB and gives at most 4096 leases; a line has at most 16 KiB; a
// name at most 253 octets, 63 between two dots, of letters, digits, "-", "_" and "."
// only. Whatever is not like that is left out and counted.
//
// What is decided here:
//   - Files are looked at when the kernel has told of them (inotify), at most once a
//     second, and every minute: they need not exist, nor the directory. What was
//     written in the last two seconds is looked at again, for clocks of file systems are
//     coarse. At the usual places, two of which are in /tmp, only a file of a system user
//     counts.
//     Kea's memfile is read with the files that its clean-up leaves beside it.
//   - A mapping keeps the name by which it was granted; the list shows that of today.
package dhcp
