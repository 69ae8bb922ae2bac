// Package restore is what one run of the daemon hands to the next: its mappings, who it
// is, and since when its clients could have missed nothing.
//
// Owns: Keeper (which mappings of the last run are taken over, and when), Store (what the
// owner hears of a journal that cannot be written), Identity (the UUID, the URLs' path and
// the BOOTID).
//
// May import: the standard library, x/time/rate; of ours slog, inotify, journal, netif, pace
// and portmap.
//
// Never: knows what a file looks like (journal), or whether a mapping is allowed
// (portmap, policy).
package restore
