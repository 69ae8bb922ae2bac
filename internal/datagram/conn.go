package datagram

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
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
	ifindex int
	family  family
}

// family is what the two kinds of sockets do in different ways.
type family interface {
	// buffer returns space for the family's control messages of one datagram.
	buffer() []byte
	// parse reads control messages: where a datagram was sent to, and by which
	// interface it came in.
	parse(oob []byte) (destination netip.Addr, ifindex int, err error)
	// control returns the control message for a datagram that leaves by an
	// interface, from one address to another.
	control(from, to netip.Addr, ifindex int) []byte
}

// NewConn makes a Conn of an IPv4 socket that is bound to the interface with the
// given index, opened here or in another process. It needs no privilege.
func NewConn(udp *net.UDPConn, ifindex int) (Conn, error) {
	want := ipv4.FlagDst | ipv4.FlagInterface
	if err := ipv4.NewPacketConn(udp).SetControlMessage(want, true); err != nil {
		return nil, fmt.Errorf("datagram: ask for arrival interface and destination: %w", err)
	}
	return &udpConn{udp: udp, ifindex: ifindex, family: four{}}, nil
}

// NewConn6 is NewConn for an IPv6 socket, which must be V6ONLY: an address that
// hides an IPv4 one is never seen (abuse case A8).
func NewConn6(udp *net.UDPConn, ifindex int) (Conn, error) {
	want := ipv6.FlagDst | ipv6.FlagInterface
	if err := ipv6.NewPacketConn(udp).SetControlMessage(want, true); err != nil {
		return nil, fmt.Errorf("datagram: ask for arrival interface and destination: %w", err)
	}
	return &udpConn{udp: udp, ifindex: ifindex, family: six{}}, nil
}

// Receive implements Conn.
func (c *udpConn) Receive(b []byte) (Packet, error) {
	oob := append(c.family.buffer(), make([]byte, markRoom)...)
	n, oobn, _, source, err := c.udp.ReadMsgUDPAddrPort(b, oob)
	if err != nil {
		return Packet{}, err
	}
	// The zone is the interface, which the packet names by its index.
	p := Packet{Size: n, Source: netip.AddrPortFrom(source.Addr().Unmap().WithZone(""), source.Port())}
	destination, ifindex, err := c.family.parse(oob[:oobn])
	if err != nil {
		return p, nil // without destination and interface nobody answers it
	}
	p.Destination, p.Ifindex, p.Mark = destination, ifindex, markIn(oob[:oobn])
	return p, nil
}

// Send implements Conn. A link-local destination needs no zone: the socket is
// bound to the device.
func (c *udpConn) Send(b []byte, from netip.Addr, to netip.AddrPort) error {
	control := c.family.control(from, to.Addr(), c.ifindex)
	var err error
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

type four struct{}

func (four) buffer() []byte { return ipv4.NewControlMessage(ipv4.FlagDst | ipv4.FlagInterface) }

func (four) parse(oob []byte) (netip.Addr, int, error) {
	var cm ipv4.ControlMessage
	err := cm.Parse(oob)
	destination, _ := netip.AddrFromSlice(cm.Dst)
	return destination.Unmap(), cm.IfIndex, err
}

func (four) control(from, _ netip.Addr, ifindex int) []byte {
	return (&ipv4.ControlMessage{Src: from.AsSlice(), IfIndex: ifindex}).Marshal()
}

type six struct{}

func (six) buffer() []byte { return ipv6.NewControlMessage(ipv6.FlagDst | ipv6.FlagInterface) }

func (six) parse(oob []byte) (netip.Addr, int, error) {
	var cm ipv6.ControlMessage
	err := cm.Parse(oob)
	destination, _ := netip.AddrFromSlice(cm.Dst) // IPv4-mapped: nobody's address
	return destination, cm.IfIndex, err
}

// siteHops is how many routers a datagram to a group of the site may pass (UDA 2.0
// section A.3); one to a group of the link passes none.
const siteHops = 10

func (six) control(from, to netip.Addr, ifindex int) []byte {
	cm := &ipv6.ControlMessage{Src: from.AsSlice(), IfIndex: ifindex}
	switch {
	case to.IsLinkLocalMulticast():
		cm.HopLimit = 1
	case to.IsMulticast():
		cm.HopLimit = siteHops
	}
	return cm.Marshal()
}
