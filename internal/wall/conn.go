package wall

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// Pair returns the two ends of a wall.
func Pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("wall: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "wall"), os.NewFile(uintptr(fds[1]), "wall"), nil
}

const (
	maxPassed   = 2                // descriptors with one message
	sendTimeout = 10 * time.Second // for an end that does not read
)

var (
	errPassed = errors.New("message with descriptors that it may not have")
	errCut    = errors.New("message was cut")
)

// conn is one end. Many may send, one receives.
type conn struct {
	unix *net.UnixConn
	raw  syscall.RawConn // the same
	buf  []byte
	oob  []byte // control messages

	mu sync.Mutex // one at a time sends
}

// newConn takes an end over, and closes it.
func newConn(end *os.File) (*conn, error) {
	c, err := net.FileConn(end)
	if err = errors.Join(err, end.Close()); err != nil {
		return nil, fmt.Errorf("wall: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("wall: not a Unix socket"), c.Close())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wall: %w", err), u.Close())
	}
	return &conn{unix: u, raw: raw, buf: make([]byte, MaxMessage+1), oob: make([]byte, unix.CmsgSpace(maxPassed*4))}, nil
}

// send sends a message, and descriptors, which stay the caller's.
func (c *conn) send(m Message, descriptors ...int) error {
	b, err := Encode(m)
	if err != nil {
		return err
	}
	return c.write(b, descriptors...)
}

func (c *conn) write(b []byte, descriptors ...int) error {
	var oob []byte
	if len(descriptors) > 0 {
		oob = unix.UnixRights(descriptors...)
	}
	until := time.Now().Add(sendTimeout) // with the wait for its turn
	c.mu.Lock()
	defer c.mu.Unlock()
	if sent, err := c.try(b, oob); sent {
		return err
	}
	if err := c.unix.SetWriteDeadline(until); err != nil {
		return err
	}
	_, _, err := c.unix.WriteMsgUnix(b, oob, nil)
	return errors.Join(err, c.unix.SetWriteDeadline(time.Time{}))
}

// try sends a message if there is room for it, and reports whether there was. A deadline
// of each message would wake the process for nothing when it comes.
func (c *conn) try(b, oob []byte) (sent bool, err error) {
	failed := c.raw.Write(func(fd uintptr) bool {
		if len(oob) == 0 {
			_, err = sockets.WriteNow(int(fd), b)
			return true
		}
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Sendmsg(int(fd), b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		return true
	})
	if failed != nil {
		return true, failed
	}
	return err != unix.EAGAIN, err
}

// receive waits for a message. Who gets descriptors closes them; with an error there are
// none.
func (c *conn) receive() (Message, []int, error) {
	var got sockets.Datagram
	var err error
	failed := c.raw.Read(func(fd uintptr) bool {
		got, err = sockets.ReceiveNow(int(fd), c.buf, c.oob)
		return err != unix.EAGAIN
	})
	if err = cmp.Or(failed, err); err == nil && got.Size == 0 {
		err = io.EOF // the other end is closed: no message is empty
	}
	descriptors, wrong := rights(c.oob[:got.Control])
	var m Message
	switch {
	case err != nil:
	case wrong != nil:
		err = wrong
	case got.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errCut
	default:
		m, err = Decode(c.buf[:got.Size])
	}
	if err == nil && len(descriptors) != passed(m.Body) {
		err = errPassed
	}
	if err != nil {
		closeAll(descriptors)
		return Message{}, nil, err
	}
	return m, descriptors, nil
}

func (c *conn) close() error { return c.unix.Close() }

// passed returns how many descriptors a message has.
func passed(b Body) int {
	switch b := b.(type) {
	case *Settings:
		if b.Shared {
			return 1
		}
	case *Socket:
		if b.Seen == ByPacketSocket {
			return 2
		}
		return 1
	}
	return 0
}

// rights returns the descriptors of control messages, all of them even with an error.
func rights(oob []byte) (all []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		got, wrong := unix.ParseUnixRights(&messages[i])
		if wrong != nil {
			err = errors.Join(err, wrong)
			continue
		}
		all = append(all, got...)
	}
	return all, err
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		_ = unix.Close(fd) // ours for a moment: nothing is left in it
	}
}
