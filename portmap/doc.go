// Package portmap is the vocabulary of the daemon, and its engine: who asks
// (Client), for what (Request), what was granted (Mapping), why not (Reason),
// and what happened (Event); the Table that knows every mapping, and the Engine
// that is the only one to change it.
//
// Owns: the mapping table and what is asked of it (Reader), leases, ownership, conflicts,
// port choice, the counts of quotas, events.
//
// May import: the standard library, and nothing that does I/O.
//
// Never: reads a clock outside Engine, opens a socket or a file, knows a
// protocol, a firewall or a configuration format. Everything it needs from the
// world stands in the small interfaces in engine.go; all other packages point here.
//
// What is decided here:
//   - The Table is an immutable value, made of weight-balanced trees that share nodes.
//     A table with a published copy would cost O(n) a change; a value needs no copy,
//     no undo when the kernel refuses a batch, and no lock. Ranks come for free: a
//     list by index, and the next free port.
//   - A client that asks for one thing by several protocols has one mapping with a
//     claim for each. UPnP names a mapping by its external port, the others by the
//     internal one, so the table has both orders.
//   - A pinhole has a random number, UPnP's UniqueID, and is found by address,
//     protocol, port and remote, so that UPnP and PCP share it as they share a
//     mapping. Filtered pinholes of one endpoint must not overlap, and a pinhole never
//     takes another's place: the first to end would close both.
//   - A mapping whose host's address another device has is suspended, not ended: ARP
//     proxies and bonded links change hands and back, and a client that asked for a
//     lease without an end never asks again. docs/protocol-notes.md has the times.
//   - A mapping has an external port, and no external address: the WAN has one, and a
//     mapping follows the WAN.
//   - A lease of 0 is made longer when less than half is left and the kernel has heard
//     of the device within a minute, so that the kernel still ends it when the daemon
//     is dead.
package portmap
