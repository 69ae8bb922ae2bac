package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"portcullis/internal/enter"
)

// exchange is a socket for transactions and short questions, below the library that makes
// the messages: the library's own waits in the poller for each of the kernel's answers,
// and takes two system calls and a page of memory for one. The kernel does the whole of
// a transaction while it is sent, so that its answers are there when sending returns; and
// it tells what went wrong unasked, so that the last message alone asks for an answer. It
// is not safe for concurrent use.
type exchange struct {
	fd   int
	port uint32 // by which the kernel knows the socket (nlmsg_pid)
	seq  uint32 // of the last question
	out  []byte
	in   [answerSize]byte
}

// answerSize is what one datagram of answers takes at most: an element with its key, its
// value and what counts for it, or a refusal.
const answerSize = 4 << 10

// openExchange opens one in a network namespace (0: the current one). Larger buffers
// than the system's limit need CAP_NET_ADMIN, and are a wish: a small one only makes
// more, smaller transactions.
func openExchange(netns, size int) (*exchange, error) {
	x := &exchange{}
	open := func() (err error) {
		x.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	}
	if err := enter.In(netns, open); err != nil {
		return nil, err
	}
	grow(x.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, size)
	grow(x.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, bufferSize)
	_ = unix.SetsockoptInt(x.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1) // or an error repeats the message
	err := unix.Bind(x.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		var a unix.Sockaddr
		a, err = unix.Getsockname(x.fd)
		if a, ok := a.(*unix.SockaddrNetlink); ok {
			x.port = a.Pid
		}
	}
	if err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func grow(fd, force, option, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, size)
	}
}

func (x *exchange) close() { _ = unix.Close(x.fd) }

// sendBuffer returns what the kernel granted, in bytes.
func (x *exchange) sendBuffer() int {
	if n, err := unix.GetsockoptInt(x.fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil {
		return n
	}
	return leastBudget
}

// errNoAnswer means that the kernel did not say what became of a transaction.
var errNoAnswer = errors.New("the kernel did not answer")

// answered stands for the answer to each message of a transaction that was done.
var answered = []netlink.Message{{Header: netlink.Header{Type: netlink.Error}, Data: make([]byte, 4)}}

// run makes one transaction of the library's messages. Without messages it is asked for
// the answer to one of a transaction that was done. Its error is, or joins, what the
// kernel answered.
func (x *exchange) run(messages []netlink.Message) ([]netlink.Message, error) {
	if len(messages) == 0 {
		return answered, nil
	}
	last := len(messages) - 2 // in front of the one that ends the batch
	x.out = x.out[:0]
	for i, m := range messages {
		flags := m.Header.Flags &^ netlink.Acknowledge
		if i == last {
			flags |= netlink.Acknowledge
		}
		x.out = appendMessage(x.out, m, flags)
	}
	defer func() {
		if cap(x.out) > keptBuffer {
			x.out = nil
		}
	}()
	return nil, x.send(messages[max(last, 0)].Header.Sequence, nil)
}

// sendAll is run for messages that are octets already, of which this one asks for the answer.
func (x *exchange) sendAll(messages []byte, asks uint32) error {
	x.out = messages
	defer func() { x.out = nil }()
	return x.send(asks, nil)
}

// keptBuffer is how large a transaction may have been for its memory to be kept.
const keptBuffer = 16 << 10

// ask makes one request that asks for an acknowledgement, and hands on the answers before
// that, in memory that the next one takes.
func (x *exchange) ask(m netlink.Message, use func(netlink.Message) error) error {
	x.seq++
	m.Header.Sequence = x.seq
	x.out = appendMessage(x.out[:0], m, m.Header.Flags)
	return x.send(x.seq, use)
}

// send sends what is in the buffer and reads what the kernel has answered, up to its
// word about one message. Where it refuses a whole transaction that may be about the
// first alone.
func (x *exchange) send(last uint32, use func(netlink.Message) error) error {
	if err := unix.Sendto(x.fd, x.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var refused []error
	for {
		n, _, err := unix.Recvfrom(x.fd, x.in[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && refused != nil:
			return errors.Join(refused...)
		case errors.Is(err, unix.EAGAIN):
			return errNoAnswer
		case err != nil:
			return err
		}
		for b := x.in[:n]; len(b) > 0; {
			m, rest, err := firstMessage(b)
			if err != nil {
				return err
			}
			b = rest
			if m.Header.Type != netlink.Error {
				if use == nil || m.Header.Sequence != last {
					continue
				}
				if err := use(m); err != nil {
					return err
				}
				continue
			}
			if len(m.Data) < 4 {
				return fmt.Errorf("an answer of %d octets", len(m.Data))
			}
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))); errno != 0 && !slices.Contains(refused, error(errno)) {
				refused = append(refused, errno)
			}
			if m.Header.Sequence == last {
				return errors.Join(refused...)
			}
		}
	}
}

// firstMessage splits the first message off a datagram.
func firstMessage(b []byte) (m netlink.Message, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return m, nil, fmt.Errorf("%d octets behind a message", len(b))
	}
	size := int(binary.NativeEndian.Uint32(b))
	if size < unix.NLMSG_HDRLEN || size > len(b) {
		return m, nil, fmt.Errorf("a message of %d octets in %d", size, len(b))
	}
	m.Header = netlink.Header{
		Length:   uint32(size),
		Type:     netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
		Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
		Sequence: binary.NativeEndian.Uint32(b[8:]),
	}
	m.Data = b[unix.NLMSG_HDRLEN:size]
	return m, b[min((size+3)&^3, len(b)):], nil
}

// appendMessage appends a message as the kernel reads it. The sender is the socket's.
func appendMessage(to []byte, m netlink.Message, flags netlink.HeaderFlags) []byte {
	size := unix.NLMSG_HDRLEN + len(m.Data)
	to = binary.NativeEndian.AppendUint32(to, uint32(size))
	to = binary.NativeEndian.AppendUint16(to, uint16(m.Header.Type))
	to = binary.NativeEndian.AppendUint16(to, uint16(flags))
	to = binary.NativeEndian.AppendUint32(to, m.Header.Sequence)
	to = binary.NativeEndian.AppendUint32(to, 0)
	to = append(to, m.Data...)
	for ; size%unix.NLMSG_ALIGNTO != 0; size++ {
		to = append(to, 0)
	}
	return to
}

// unheard keeps what a writer does itself from the socket that watches for what others do.
type unheard struct {
	mu     sync.Mutex
	port   uint32 // of the writer; 0: it has no socket
	socket *netlink.Conn
}

// writes says by which number the kernel names the writer's socket in what it tells
// watchers; 0: it has none.
func (u *unheard) writes(port uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.port = port
	u.set()
}

// watches says which socket watches; nil: none.
func (u *unheard) watches(c *netlink.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.socket = c
	u.set()
}

// set has the kernel leave out what the writer has done. Where it cannot, that is told
// too, and whoever takes it finds a thread of this process in it.
func (u *unheard) set() {
	switch {
	case u.socket == nil:
	case u.port == 0:
		_ = u.socket.RemoveBPF()
	default:
		if p, err := bpf.Assemble(notFrom(u.port)); err == nil {
			_ = u.socket.SetBPF(p)
		}
	}
}

// notFrom passes each datagram but those whose first message names this port. The kernel
// puts no two programs' messages into one.
func notFrom(port uint32) []bpf.Instruction {
	const sender = 12 // nlmsg_pid, in the machine's order, which the program reads as the network's
	var octets [4]byte
	binary.NativeEndian.PutUint32(octets[:], port)
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: sender, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(octets[:]), SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	}
}
