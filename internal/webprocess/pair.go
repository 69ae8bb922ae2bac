package webprocess

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"portcullis/internal/web"
)

// Argument is what the program is started with to be the page. It is no command: people do
// not call it.
const Argument = "page"

// Descriptors of a page.
const (
	pairDescriptor     = 3
	listenerDescriptor = 4
)

// Kinds of messages, by their first octet.
const (
	msgConnect   = 'c' // from the page: a connection to the daemon, please
	msgTaken     = 't' // from the page: the link's word signs in from now on
	msgConnected = 'o' // to the page: here it is, a descriptor; or 'e' and why not
	msgFailed    = 'e' // an errno in decimal
	msgLink      = 'l' // the hash of a sign-in link's word, web.HashSize octets
	msgSettings  = 's' // once, the first: settings as JSON
)

// maxMessage is more than any message has.
const maxMessage = 4 << 10

// settings are what a page has to know.
type settings struct {
	Hosts    []string // that a browser may call it by, with the port
	Loopback bool     // only this machine may connect
	Socket   string   // for the words of messages
}

// pair returns two ends of a conversation.
func pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "page"), os.NewFile(uintptr(fds[1]), "page"), nil
}

// talk returns an end as a connection, and closes the file.
func talk(end *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(end)
	if err = errors.Join(err, end.Close()); err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix socket"), c.Close())
	}
	return u, nil
}

// errMessage is a message that none of ours is.
var errMessage = errors.New("a message that nobody sends here")

// receive waits for a message, and returns its descriptor if it has one, else -1.
func receive(c *net.UnixConn) (text []byte, fd int, err error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, -1, err
	}
	fd = -1
	if oobn > 0 {
		if fd, err = descriptor(oob[:oobn]); err != nil {
			return nil, -1, err
		}
	}
	if n == 0 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, -1, errMessage
	}
	return buf[:n], fd, nil
}

// descriptor returns the one that a message has, or none of them.
func descriptor(oob []byte) (int, error) {
	var fds []int
	all, err := unix.ParseSocketControlMessage(oob)
	if err == nil && len(all) == 1 {
		fds, err = unix.ParseUnixRights(&all[0])
	}
	if len(fds) == 1 {
		return fds[0], nil
	}
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing is left in it
	}
	return -1, errors.Join(errMessage, err)
}

// link returns the message that has the page take this word once.
func link(word string) []byte {
	hash := web.Hash(word)
	return append([]byte{msgLink}, hash[:]...)
}

// errnoOf returns the number of an error, EIO where it has none.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return syscall.ETIMEDOUT
	}
	return syscall.EIO
}
