package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/enter"
)

// heardRoom is how many octets of what the kernel tells may wait until they are looked at, of the
// thousand flows, say, that a busy gateway begins between two grants.
const heardRoom = 1 << 20

// socket is one to nfnetlink. The libraries that we have read a whole listing into
// memory, or make garbage of all of it. It is not safe for concurrent use.
type socket struct {
	fd    int
	flags int // of each receive
	buf   []byte
}

// openSocket opens one in a network namespace (0: the current one), with a bound on
// each wait for the kernel. One that is told of groups (a bit for each) does not wait for
// them: receive fails with EAGAIN where there is nothing, and with ENOBUFS once where
// there was too much.
func openSocket(namespace int, patience time.Duration, groups uint32) (*socket, error) {
	fd := -1
	open := func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	}
	if err := enter.In(namespace, open); err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}),
	)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{fd: fd, buf: make([]byte, buffer)}
	if groups != 0 {
		s.flags = unix.MSG_DONTWAIT
		// A wish: it needs CAP_NET_ADMIN where it is more than the system's limit.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, heardRoom)
	}
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// sizeofNFGen is the size of struct nfgenmsg, which is in front of the attributes.
const sizeofNFGen = 4

// send sends one request to conntrack.
func (s *socket) send(kind, flags uint16, family byte, attrs []byte) error {
	msg := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+sizeofNFGen+len(attrs))
	msg = append(append(msg, family, unix.NFNETLINK_V0, 0, 0), attrs...)
	binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|kind)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST|flags)
	return unix.Sendto(s.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads one datagram and hands on the messages in it. It is over with the
// end of a listing or with an acknowledgement; the kernel's refusal is an error.
func (s *socket) receive(each func(payload []byte) error) (over bool, err error) {
	n, _, err := unix.Recvfrom(s.fd, s.buf, s.flags)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(s.fd, s.buf, s.flags)
	}
	if err != nil {
		return false, err
	}
	for b := s.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("a message of %d octets in %d", size, len(b))
		}
		payload := b[unix.NLMSG_HDRLEN:size]
		switch kind := binary.NativeEndian.Uint16(b[4:]); kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(payload) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(payload)); errno > 0 {
					return true, unix.Errno(errno)
				}
			}
			return true, nil
		case unix.NFNL_SUBSYS_CTNETLINK<<8 | ctNew:
			if err := each(payload); err != nil {
				return false, err
			}
		}
		b = b[min(aligned(size), len(b)):]
	}
	return false, nil
}

// aligned rounds up as messages and attributes are.
func aligned(n int) int { return (n + 3) &^ 3 }

const attrHeader = 4

// next returns the first attribute, and what is behind it. One that is cut short ends
// them. (An iterator would allocate for each flow.)
func next(b []byte) (kind uint16, value, rest []byte, ok bool) {
	if len(b) < attrHeader {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < attrHeader || size > len(b) {
		return 0, nil, nil, false
	}
	kind = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return kind, b[attrHeader:size], b[min(aligned(size), len(b)):], true
}

// attribute appends one.
func attribute(to []byte, kind uint16, value []byte) []byte {
	to = binary.NativeEndian.AppendUint16(to, uint16(attrHeader+len(value)))
	to = binary.NativeEndian.AppendUint16(to, kind)
	to = append(to, value...)
	return append(to, make([]byte, aligned(len(value))-len(value))...)
}

// nested appends one that consists of others.
func nested(to []byte, kind uint16, value []byte) []byte {
	return attribute(to, kind|unix.NLA_F_NESTED, value)
}
