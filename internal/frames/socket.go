package frames

import (
	"errors"
	"net"
	"os"

	"portcullis/internal/datagram"
)

// Socket is one of UDP that is bound to an interface, and what shows which machine sent a
// datagram. It can be passed to another process.
type Socket struct {
	UDP     *net.UDPConn
	Marks   bool     // the socket tells the marks of rules
	Packets *os.File // a packet socket that sees its frames; nil: there is none
}

// Conn returns the Conn of a socket of the interface with this index, which takes it over.
// With an error it is closed.
func (s Socket) Conn(ifindex int, six bool) (datagram.Conn, error) {
	newConn := datagram.NewConn
	if six {
		newConn = datagram.NewConn6
	}
	conn, err := newConn(s.UDP, ifindex)
	switch {
	case err != nil:
		return nil, errors.Join(err, s.Close())
	case s.Packets != nil:
		return Packets(conn, s.Packets, six), nil
	case s.Marks:
		return Marked(conn), nil
	}
	return conn, nil
}

// Close closes it, where Conn has not taken it over.
func (s Socket) Close() error {
	err := s.UDP.Close()
	if s.Packets != nil {
		err = errors.Join(err, s.Packets.Close())
	}
	return err
}
