package datagram

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
)

// Packet says of a received datagram what its bytes cannot be trusted with.
type Packet struct {
	Size        int            // octets read
	Source      netip.AddrPort // unmapped
	Destination netip.Addr     // unmapped; the zero Addr when the system did not say
	Ifindex     int            // of the interface it came in by; 0 when not known
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

// udpConn is the Conn over a real socket.
type udpConn struct {
	udp     *net.UDPConn
	ifindex int
}

// NewConn makes a Conn of an IPv4 socket that is bound to the interface with the
// given index, opened here or in another process. It needs no privilege.
func NewConn(udp *net.UDPConn, ifindex int) (Conn, error) {
	want := ipv4.FlagDst | ipv4.FlagInterface
	if err := ipv4.NewPacketConn(udp).SetControlMessage(want, true); err != nil {
		return nil, fmt.Errorf("datagram: ask for arrival interface and destination: %w", err)
	}
	return &udpConn{udp: udp, ifindex: ifindex}, nil
}

// Receive implements Conn.
func (c *udpConn) Receive(b []byte) (Packet, error) {
	oob := ipv4.NewControlMessage(ipv4.FlagDst | ipv4.FlagInterface)
	n, oobn, _, source, err := c.udp.ReadMsgUDPAddrPort(b, oob)
	if err != nil {
		return Packet{}, err
	}
	p := Packet{Size: n, Source: netip.AddrPortFrom(source.Addr().Unmap(), source.Port())}
	var cm ipv4.ControlMessage
	if err := cm.Parse(oob[:oobn]); err != nil {
		return p, nil // without destination and interface nobody answers it
	}
	destination, _ := netip.AddrFromSlice(cm.Dst)
	p.Destination, p.Ifindex = destination.Unmap(), cm.IfIndex
	return p, nil
}

// Send implements Conn.
func (c *udpConn) Send(b []byte, from netip.Addr, to netip.AddrPort) error {
	if err := c.udp.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return err
	}
	cm := ipv4.ControlMessage{Src: from.AsSlice(), IfIndex: c.ifindex}
	_, _, err := c.udp.WriteMsgUDPAddrPort(b, cm.Marshal(), to)
	return err
}

// Close implements Conn.
func (c *udpConn) Close() error { return c.udp.Close() }
