// Package flows ends the connection tracking entries of mappings that changed, for
// every backend alike.
//
// Translation is decided at the first packet of a flow and then stays with the
// flow. So when a mapping ends, its flows must be ended too (abuse case C8), and
// when one begins, flows that were there before it must be looked up again: a peer
// that kept sending to a closed UDP port would otherwise never be translated. Both
// are done by listing the kernel's flows once for all changes that are waiting, in
// a goroutine of its own: the table may be large. It is read as a stream, and where
// few ports are asked about the kernel tells theirs alone.
//
// When one begins, flows of other hosts that leave from its external port are ended
// too: they would take what is sent to the mapping, and keep the client's own flows
// out. That is done before the client is answered, as far as that costs little, and
// what the host sends next leaves from another port, by the backend's rules. The
// gateway's own flows are let be.
//
// For mappings in a row the kernel's table is not gone through each time: all flows are
// listed once, and from then on the kernel tells of those that begin (survey.go), until a
// second after the last mapping.
//
// A mapping whose restrictions change is no exception. The flows of those whom it
// no longer admits end, because a restriction blocks the traffic of others (RFC
// 6887 section 13.3), not just their first packets; a UDP flow would otherwise live
// on for as long as its peer keeps sending. The flows of those whom it still admits
// go on, and so does what the host itself began.
//
// That the kernel forgets a flow does not end it for its host: conntrack picks up a
// connection in the middle, so a camera that just keeps sending would carry it on as
// one of its own. Over IPv4 that can happen to TCP under one port in two, where the
// external port is the internal one (measured); over IPv6, where nothing is
// translated, to all. Therefore such hosts are refused for RefuseTime, by the
// backend's rules, and before the flows are forgotten: between the two steps they
// would begin anew what is being ended.
//
// A flow through a pinhole does not tell that it came through one. It is taken for
// such a flow if it began outside the LANs, leads to the endpoint of a pinhole that
// ended, and that one admitted its sender. One that the owner's own rules let in to
// the same port is ended with them, once; whatever the host began itself has the
// other direction.
//
// Owns: the socket to conntrack and its settings, what is waiting to be ended, the
// judgement which flow must end.
//
// May import: slog, portmap, firewall, enter, x/sys/unix, the standard library.
//
// Never: knows a backend, ends a flow that no mapping of ours made or that keeps no
// client from its mapped port, or takes more of a core than a fiftieth, unless a flow would live for two seconds after its mapping.
//
// What is decided here:
//   - conntrack is asked with its own filter (Linux 5.8) over raw netlink and read as
//     a stream: both libraries collect the whole list, whose length any LAN host
//     decides.
package flows
