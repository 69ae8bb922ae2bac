package frames

import (
	"encoding/binary"

	"portcullis/internal/datagram"
)

// FloodMark is the mark of a datagram of a machine that sends more than it may; the
// socket need not take it. It is no drop, because others may listen at the port. A
// machine whose address ends so that this would be its mark (fe:ff:ff:ff where the low
// octet is first, ff:ff:ff:fe elsewhere) is always refused with it.
const FloodMark = 1

// SenderOf returns the last four octets of the address of who sent a packet with
// this mark, false when no rule has seen it. False too for a machine whose
// address ends in ff:ff:ff:ff, of which the mark is none, and for FloodMark, which may
// be anybody's: such a machine is not believed to be itself, nor is another taken for it.
func SenderOf(mark uint32) (octets [4]byte, ok bool) {
	binary.NativeEndian.PutUint32(octets[:], ^mark)
	return octets, mark != 0 && mark != FloodMark
}

// Marked returns a Conn that says of each packet who sent it, by the mark that the
// socket of conn tells.
func Marked(conn datagram.Conn) datagram.Conn { return markConn{conn} }

// markConn is a Conn whose packets bear marks.
type markConn struct{ datagram.Conn }

// Receive implements datagram.Conn.
func (c markConn) Receive(b []byte) (datagram.Packet, error) {
	p, err := c.Conn.Receive(b)
	if octets, ok := SenderOf(p.Mark); ok {
		p.Sender = datagram.Sender{MAC: [6]byte{2: octets[0], 3: octets[1], 4: octets[2], 5: octets[3]}, Known: len(octets)}
	}
	return p, err
}
