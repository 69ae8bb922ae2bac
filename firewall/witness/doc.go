// Package witness tells which machine on a LAN sent a datagram: the link-layer
// address of the frame that brought it. A source address can be written by
// anybody, and UDP has no handshake that shows a wrong one.
//
// There are two ways. With nf_tables a rule marks each datagram with the last four
// octets of that address, after all of the owner's rules, and the socket tells the
// mark with the datagram (SO_RCVMARK, Linux 5.19). So the answer is about this
// datagram and no other: no set that a flood can fill, no window in which another
// datagram passes for it, no question to the kernel for each. It needs
// CAP_NET_ADMIN alone. Four octets and not six, because a mark has four; who can
// choose the last four can choose all six. Two endings give marks that mean something
// else (nft.SenderOf); a machine that has one is nobody, and gets no port by NAT-PMP or
// PCP.
//
// The same rules tell what one machine sends too much of, whatever source addresses it
// writes, and the socket refuses that before it takes room from what others send. It
// is not dropped: other programs may listen at port 1900.
//
// The rules also remember which machines have sent in the last seconds, TCP included. That
// is no identity; it is by what the half that decides bounds the lies of the one that reads
// (Silent): a request for a host that has sent nothing nobody has made.
//
// Without nf_tables, and on older kernels, a packet socket beside the UDP one sees
// the frames of its port, through a filter in the kernel, and each datagram is
// found among them by its octets. It needs CAP_NET_RAW, and costs every packet of
// the LAN some nanoseconds. A request in fragments is not recognised.
//
// Owns: the choice between the two, how sockets are made ready for either. What a socket
// then shows internal/frames reads, without a privilege and in whichever process.
//
// May import: internal/frames, firewall/nft, x/sys/unix, the standard library.
//
// Never: knows a protocol, a mapping or a neighbour, or says who may be answered.
//
// What is decided here:
//   - Who sent a datagram is its mark, not a set of requests that were seen: a set can be
//     filled by a flood, is about the last seconds and not about this datagram, and is
//     a question to the kernel each.
//   - The table is not owned by our socket (flags owner), though a flush would then
//     pass it by: a ruleset that was saved with it could not be loaded while the
//     daemon runs.
//   - A flood ends before the socket's buffer, which is where it did its harm: at
//     5,000 datagrams a second a busy machine lost half of the others' requests there,
//     however fast they were refused behind it.
package witness
