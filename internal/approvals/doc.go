// Package approvals is what devices wait for the owner to say, and what he has said.
//
// Owns: Keeper, which remembers what was refused because the owner is to be asked first, bounded
// by device and in all, takes his answers, has the engine go by them, and keeps them in the state
// directory; and the form of that file.
//
// May import: the standard library; of ours json, slog, pace and portmap.
//
// Never: decides about a request (the policy does, which is told the answer), opens a file
// by itself, or hears of anything from the half that parses the network: what waits comes from
// the engine's events, and answers from the control socket.
//
// What is decided here:
//   - An answer holds when it is on the disk, and not before: one that cannot be stored changes
//     nothing. What takes an answer back holds at once, stored or not: a full disk must not keep
//     a port open.
//   - An answer is about a device (portmap.Device): its MAC address and the LAN that it is on,
//     or its address where the link has no MAC addresses; and about the port of its service, on
//     both families, whatever number the outside sees. A device that changes its MAC address
//     is another one, and is asked about again; who takes over the MAC address of an approved
//     device has its approvals, as it has its rules.
//   - What waits is in memory alone, eight ports of a device, 64 devices: a device that asks for
//     everything forgets its own, one that makes up devices takes the places of those that have
//     not answered the gateway first, and then those of its own LAN. A program that still wants
//     its port asks again.
//   - Numbers of what waits begin anywhere in each run, so that one that was read before a
//     restart does not mean something else after it.
//   - On disk an answer that ends has both when, and what time it was when that was written,
//     which is done again every ten minutes. A router without a clock of its own boots in 1970,
//     or when it was made: an answer sleeps there until the clock is past what it was, or each
//     boot would give it time anew. It is asked about meanwhile, and holds for what is left of
//     it then. What is said in 1970 holds by the time that passes, in that run.
//   - An answer for one mapping is noted as used when the engine has said so, not before the
//     client is told. A crash in between, when the mapping has ended before it as well, leaves
//     it to be used once more.
package approvals
