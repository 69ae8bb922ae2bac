// Package wall carries what passes between the two halves of the daemon where they are two
// processes: the questions of the front, the answers of the warden, sockets, and what
// changes. It is a SEQPACKET pair of sockets; each message is one datagram on it, of at
// most MaxMessage octets.
//
// Owns: the messages and their octets, the two ends (Client is the warden as a front sees
// it, Server answers for a warden), how descriptors are passed, how many requests are under
// way and for how long.
//
// May import: the standard library, x/sys/unix; of ours slog, crew, datagram, frames, netif, sockets
// and portmap.
//
// Never: decides what may be had, knows a protocol, the firewall, the configuration or a
// file; lets anything cross that is not said here.
//
// # What an owned front can do
//
// Whoever owns the front can send each message that a front can, at any time, as often as it
// likes. So each is no more than this:
//   - Map, MapSet (Map): the policy decides as it does on every request, rules, quotas and
//     rates included; what the host is called the warden looks up. The owner's hand
//     (portmap.ViaOwner) cannot be said. Who has the address, and whether that machine has
//     answered and has sent to a port of ours on that LAN in the last seconds, the warden
//     asks the kernel (warden.asks): it can open what the policy permits a host that is there
//     and talks to us, which need not have asked for just that. Of hosts behind one router it
//     is the router that talks; on a link without MAC addresses, where a host has none,
//     whatever is said, and where frames leave no marks (status says so), it can open that
//     for any host.
//   - Unmap: it can end the mappings of any host, one client at a time; never the owner's
//     way, which has no client.
//   - Own, OwnPorts, External, Internal, Pinhole: it can read any mapping, at most
//     portmap.MaxPage at a time: whose, where to, its description and its end. It never
//     learns a PCP nonce, a rule's name or a host's. By the number that comes with the
//     settings (Turn) it can see how often mappings change; it cannot write there.
//   - Packets, OutboundTimeout, Heard: it can read counters, the kernel's timeouts, and
//     which devices have answered.
//   - Suspect: it can have the rules looked at, which changes none that is as it should be.
//   - KeepEpochs, NextBootID: it can spoil the epochs and the boot number of the next run:
//     clients then ask again for what they had. How often they are written is bounded.
//   - Open: it gets the sockets of the LANs that are served, at the addresses and the ports
//     that we serve, bound to their devices. There is no other: no port, address or
//     interface comes from the front but to be compared.
//     They are the front's user's (sandbox.User.Make), so that the firewall rejects what is
//     sent by them elsewhere, as IP_PKTINFO could. A packet socket, where senders are
//     seen by such, is under no rule: frames can be sent by it on any interface.
//   - Resolve: it can have the kernel ask a LAN for hosts of its own, which its sockets there
//     do anyway.
//   - Connect: it gets connections from the gateway's address on a LAN to hosts of that LAN,
//     to ports from 1024, a bounded number in a second, where the host has talked to us
//     (warden.Dial). No other interface, address of ours, network, group or lower port is
//     connected to.
//   - Forget: it can give up its own requests.
//   - Served, Failed: it can say that it serves what it does not, and the other way about.
//   - Pong: it can say that it serves; Confined it can say once, and has before a packet is
//     read.
//   - Record: it can write into the owner's log, so many lines and octets a second, each line
//     marked as the front's. All fronts share what there may be (Log).
//
// It can refuse service, and lie to the hosts of the LANs. A message that no front of ours
// sends, one too many (MaxUnderWay), or one with a descriptor ends the wall, and with it the
// front.
//
// What is decided here:
//   - The octets are written by hand, once for both directions (wire.go): what is read has
//     one form, so that Encode(Decode(b)) is b. encoding/gob would take descriptions of
//     types from the other end, and has no such form.
//   - Requests have numbers, and answers come in any order: a mapping waits for the kernel,
//     a list for nobody. Who gives up says so, but its place is free only with the answer:
//     or a front would have more under way than it may.
//   - The front remembers what it has read of the table, some answers, until the table is
//     another one (Turn): a control point that polls costs the warden nothing. The number is
//     read rather than told, because what is told comes later than the answer to another
//     client's request, and a client that had one could read what was before it.
//   - Of what one client changes again and again the front is told at once, and then once in
//     20 ms: it gathers events for its subscribers anyway, and each message wakes it.
//   - What the published table says is answered by the goroutine that has read the question:
//     another one would have to be woken for less work than that.
//   - Patience crosses as a duration, ends of leases too: both clocks are the same, but only
//     one of them has the monotonic reading.
//   - The client copies a socket's descriptor and makes it its own, as does the packet
//     socket that shows its senders (internal/frames).
package wall
