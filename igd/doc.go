// Package igd is the UPnP Internet Gateway Device, versions 1 and 2 at once: its
// descriptions, the actions of its services, and the events they send. It turns
// an action into a portmap.Request and a portmap.Reason into a UPnP error.
//
// One table (table.go and the file of each service) says which services,
// actions, arguments and state variables there are. The descriptions, the
// dispatch, the checks of arguments and the events all follow from it, so that
// what is announced is what works: a new action is one entry.
//
// Owns: the device tree, the service descriptions, the URLs under which they
// are served, argument rules, error codes, the values of evented variables.
//
// May import: slog, portmap, soap, http1, httpd, gena, xml1, digest, the standard library.
//
// Never: decides who may map what (portmap and its policy do), sends a datagram,
// resolves a name, reads an interface, trusts an address that a client wrote,
// or behaves differently for a client's product string.
//
// What is decided here, where the documents differ or are silent:
//   - Two descriptions, each with URLs of its own and consistent in itself;
//     discovery shows the one that fits the search. A control URL understands
//     every version of its service, whichever description it stands in, and
//     answers in the version of the request.
//   - Every in argument must be there: 402 (abuse case G3), but for the remote host
//     and the description, which clients leave out (ODD-3).
//   - Numbers may have blanks around them; words and addresses may not.
//   - The lease that is left is told as it is; version 1 gets back the 0 that it asked
//     for (CHOICE-7).
//   - A client sees, counts, is told of and deletes its own mappings, in
//     whatever protocol it made them, and nobody else's: indexes have no gaps,
//     PortMappingNumberOfEntries is the subscriber's own number, NewManage is
//     ignored. SystemUpdateID counts the changes of the whole table, but is sent
//     only when the subscriber's own mappings change.
//   - Optional actions that would let the LAN end, time or configure the
//     connection do not exist (401); required ones are refused (606, or 731 for
//     SetConnectionType from version 2). RequestConnection while connected, and
//     SetDefaultConnectionService to what it is, change nothing and succeed.
//   - Mappings are asked for by IPv4 only: over IPv6 the Add actions are 606, and
//     the lists are empty. Pinholes are in none of WANIPConnection's lists,
//     counts and events.
//   - A pinhole's lease outside 1 to 86400 is 601, the general rule for a stated
//     range. RemoteHost may be "*" or "::/0" for anybody, and Protocol "TCP" or
//     "UDP", because clients send them. An argument that is too long is 402 there,
//     since none is free text (abuse case J2).
//   - A target that is not the caller's own address, nor another one of the same
//     device where the owner allows that, is 606, what is no host included (B12).
//     The engine is asked all the same, so that the attempt is logged.
//   - A UniqueID of another host's pinhole is 704, word for word as one that
//     does not exist (abuse case J4). AddPinhole says 606 where it is the address
//     that is another's: that tells nothing of pinholes.
//   - While no pinhole can be open, every action on one is 703, as the document
//     has it; the status and GetOutboundPinholeTimeout are still told.
//   - The random part of the URLs is one of the installation, not of each start:
//     programs keep control URLs for as long as they run, and could neither renew nor
//     delete what they had. It is kept beside the UUID, and not taken from a state
//     directory that others can write to.
//   - What is kept for a device whose address another has is 718, a conflict, though
//     denials are 606: the port is another client's, and on 718 libtorrent, libplum
//     and consoles take another port at once, while on 606 they give up.
package igd
