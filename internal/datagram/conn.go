package datagram

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// Packet is what is known of a received datagram beside its bytes, which its sender
// chose.
type Packet struct {
	Size        int            // octets read
	Source      netip.AddrPort // unmapped, without zone
	Destination netip.Addr     // unmapped; the zero Addr when the system did not say
	Ifindex     int            // of the interface it came in by; 0 when not known
	Mark        uint32         // of the packet in the kernel; 0 when the socket was not asked for it
	Sender      Sender         // of its frame, where the Conn sees that (firewall/witness)
}

// Conn is what a server needs of a socket.
type Conn interface {
	// Receive waits for a datagram and puts it into b; what does not fit is
	// lost. After Close it returns net.ErrClosed.
	Receive(b []byte) (Packet, error)
	// Send sends a datagram out by the interface the Conn belongs to, from the
	// given address and the port of the socket. It does not wait for long: a
	// datagram that finds no room is lost, with an error.
	Send(b []byte, from netip.Addr, to netip.AddrPort) error
	// Close makes a waiting Receive return.
	Close() error
}

// sendPatience is how long a full send buffer may hold up the server. It fills
// when answers wait for neighbours that do not exist, which a forger of source
// addresses can arrange.
const sendPatience = 10 * time.Millisecond

// sendTries: on a busy machine the time may be over before the first try was made,
// and a buffer with room be taken for a full one.
const sendTries = 2

// udpConn is the Conn over a real socket.
type udpConn struct {
	udp     *net.UDPConn
	raw     syscall.RawConn // the same
	ifindex int
	family  family
}

// family is what the two kinds of sockets do in different ways.
type family interface {
	// buffer returns space for the family's control messages of one datagram.
	buffer() []byte
	// parse reads control messages: where a datagram was sent to, and by which
	// interface it came in.
	parse(oob []byte) (destination netip.Addr, ifindex int)
	// control returns the control message for a datagram that leaves by an
	// interface, from one address to another.
	control(from, to netip.Addr, ifindex int) []byte
}

// NewConn makes a Conn of an IPv4 socket that is bound to the interface with the
// given index, opened here or in another process. It needs no privilege.
func NewConn(udp *net.UDPConn, ifindex int) (Conn, error) {
	return newConn(udp, ifindex, four{}, unix.IPPROTO_IP, unix.IP_PKTINFO)
}

// NewConn6 is NewConn for an IPv6 socket, which must be V6ONLY: an address that
// hides an IPv4 one is never seen (abuse case A8).
func NewConn6(udp *net.UDPConn, ifindex int) (Conn, error) {
	return newConn(udp, ifindex, six{}, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO)
}

// newConn has the kernel tell of each datagram where it was sent to, and by which
// interface it came in.
func newConn(udp *net.UDPConn, ifindex int, family family, level, option int) (Conn, error) {
	var refused error
	raw, err := udp.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), level, option, 1) })
	}
	if err = errors.Join(err, refused); err != nil {
		return nil, fmt.Errorf("datagram: ask for arrival interface and destination: %w", err)
	}
	return &udpConn{udp: udp, raw: raw, ifindex: ifindex, family: family}, nil
}

// Receive implements Conn.
func (c *udpConn) Receive(b []byte) (Packet, error) {
	oob := append(c.family.buffer(), make([]byte, markRoom)...)
	var got sockets.Datagram
	var err error
	failed := c.raw.Read(func(fd uintptr) bool {
		got, err = sockets.ReceiveNow(int(fd), b, oob)
		return err != unix.EAGAIN
	})
	if err = cmp.Or(failed, err); err != nil {
		return Packet{}, err
	}
	// The zone is the interface, which the packet names by its index.
	p := Packet{Size: got.Size, Source: netip.AddrPortFrom(got.From.Addr().WithZone(""), got.From.Port())}
	// Without destination and interface nobody answers it.
	if p.Destination, p.Ifindex = c.family.parse(oob[:got.Control]); p.Destination.IsValid() {
		p.Mark = markIn(oob[:got.Control])
	}
	return p, nil
}

// Send implements Conn. A link-local destination needs no zone: the socket is
// bound to the device.
func (c *udpConn) Send(b []byte, from netip.Addr, to netip.AddrPort) error {
	control := c.family.control(from, to.Addr(), c.ifindex)
	var err error
	failed := c.raw.Control(func(fd uintptr) { err = sockets.SendNow(int(fd), b, control, to) })
	if failed != nil || !errors.Is(err, unix.EAGAIN) {
		return errors.Join(failed, err)
	}
	for range sendTries {
		if err = c.udp.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
			return err
		}
		_, _, err = c.udp.WriteMsgUDPAddrPort(b, control, to)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return err
}

// Close implements Conn.
func (c *udpConn) Close() error { return c.udp.Close() }

// find returns the data of the first control message of a kind, nil if there is none of
// that size.
func find(oob []byte, level, typ int32, size int) []byte {
	for len(oob) >= unix.CmsgLen(0) {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return nil
		}
		if header.Level == level && header.Type == typ && len(data) >= size {
			return data
		}
		oob = rest
	}
	return nil
}

type four struct{}

func (four) buffer() []byte { return make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo)) }

// parse reads struct in_pktinfo of ip(7): the interface, the local address, and the one in
// the header.
func (four) parse(oob []byte) (netip.Addr, int) {
	info := find(oob, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	if info == nil {
		return netip.Addr{}, 0
	}
	return netip.AddrFrom4([4]byte(info[8:12])), int(binary.NativeEndian.Uint32(info))
}

func (four) control(from, _ netip.Addr, ifindex int) []byte {
	info := unix.Inet4Pktinfo{Ifindex: int32(ifindex)}
	copy(info.Spec_dst[:], from.AsSlice())
	return unix.PktInfo4(&info)
}

type six struct{}

func (six) buffer() []byte { return make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo)) }

// parse reads struct in6_pktinfo of ipv6(7): the address, and the interface.
func (six) parse(oob []byte) (netip.Addr, int) {
	info := find(oob, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	if info == nil {
		return netip.Addr{}, 0
	}
	// One that hides an IPv4 address is nobody's.
	return netip.AddrFrom16([16]byte(info[:16])), int(binary.NativeEndian.Uint32(info[16:]))
}

// siteHops is how many routers a datagram to a group of the site may pass (UDA 2.0
// section A.3); one to a group of the link passes none.
const siteHops = 10

func (six) control(from, to netip.Addr, ifindex int) []byte {
	info := unix.Inet6Pktinfo{Ifindex: uint32(ifindex)}
	copy(info.Addr[:], from.AsSlice())
	all := unix.PktInfo6(&info)
	switch {
	case to.IsLinkLocalMulticast():
		all = append(all, hopLimit(1)...)
	case to.IsMulticast():
		all = append(all, hopLimit(siteHops)...)
	}
	return all
}

func hopLimit(hops uint32) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], hops)
	return b
}
