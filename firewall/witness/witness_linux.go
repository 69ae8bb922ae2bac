package witness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"portcullis/firewall/nft"
	"portcullis/internal/frames"
)

// Way is how frames are seen.
type Way string

// The ways.
const (
	Mark         Way = "mark"
	PacketSocket Way = "packet socket"
)

// Witness finds out which machine sent a datagram. Its methods are safe for concurrent use.
type Witness struct {
	way    Way
	why    error // not by marks
	frames *nft.Frames
}

// Open chooses the way, for datagrams to these ports; web is the port of TCP to which
// frames are remembered for Silent, 0 where there is none. Of one machine the kernel lets
// pass most a second, where it can see to that; 0 is no limit. The error says why
// there is no way, and what helps.
func Open(ctx context.Context, most int, web uint16, ports ...uint16) (*Witness, error) {
	noMarks := marksTold()
	if noMarks == nil {
		var frames *nft.Frames
		if frames, noMarks = nft.OpenFrames(ctx, 0, uint64(most), web, ports...); noMarks == nil {
			return &Witness{way: Mark, frames: frames}, nil
		}
	}
	if err := packetSockets(); err != nil {
		return nil, fmt.Errorf("cannot see which machine sends a datagram: by marks: %w; by a packet socket: %w "+
			"(give the daemon CAP_NET_RAW, or nf_tables on Linux 5.19 or later)", noMarks, err)
	}
	return &Witness{way: PacketSocket, why: noMarks}, nil
}

// Way returns the way, and why it is not by marks, if it is not.
func (w *Witness) Way() (Way, error) { return w.way, w.why }

// Follow makes it see the frames of these interfaces. A datagram from another one
// has no sender.
func (w *Witness) Follow(ctx context.Context, lans []string) error {
	if w.way != Mark {
		return nil
	}
	return w.frames.Follow(ctx, lans)
}

// Know makes these machines, and no other, have a limit of their own, whatever is sent
// by what others invent. They are those that have answered the gateway.
func (w *Witness) Know(ctx context.Context, macs [][6]byte) error {
	if w.way != Mark {
		return nil
	}
	return w.frames.Know(ctx, macs)
}

// Remembers reports whether Silent can be sure of anything.
func (w *Witness) Remembers() bool { return w.way == Mark }

// Silent reports whether it is certain that by an interface a machine has sent nothing to
// any of the ports for some seconds, nor a host to that of TCP.
func (w *Witness) Silent(ctx context.Context, ifindex int, mac [6]byte, host netip.Addr) (bool, error) {
	if w.way != Mark {
		return false, nil
	}
	return w.frames.Silent(ctx, ifindex, mac, host)
}

// Audit puts right what others have changed in the kernel, and returns what was
// wrong; "" is nothing.
func (w *Witness) Audit(ctx context.Context) (drift string, err error) {
	if w.way != Mark {
		return "", nil
	}
	return w.frames.Audit(ctx)
}

// Close takes everything out of the kernel.
func (w *Witness) Close(ctx context.Context) error {
	if w.way != Mark {
		return nil
	}
	return w.frames.Close(ctx)
}

// Place is where datagrams come in.
type Place struct {
	Ifindex int
	IPv6    bool
	Port    uint16
}

// Ready makes a socket show of each packet who sent it, and takes it over; with an error
// it is closed.
func (w *Witness) Ready(udp *net.UDPConn, at Place) (frames.Socket, error) {
	if w.way == Mark {
		return w.Marked(udp)
	}
	enlarge(udp)
	packets, err := packetSocket(at)
	if err != nil {
		return frames.Socket{}, errors.Join(err, udp.Close())
	}
	return frames.Socket{UDP: udp, Packets: packets}, nil
}

// Marked is Ready where that costs nothing, which is by marks; else nothing is shown.
func (w *Witness) Marked(udp *net.UDPConn) (frames.Socket, error) {
	if w.way != Mark {
		return frames.Socket{UDP: udp}, nil
	}
	if err := errors.Join(askForMarks(udp), refuseFloods(udp)); err != nil {
		return frames.Socket{}, errors.Join(err, udp.Close())
	}
	enlarge(udp)
	return frames.Socket{UDP: udp, Marks: true}, nil
}

// marksTold returns why a socket cannot tell marks.
func marksTold() error {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	return errors.Join(askForMarks(udp), udp.Close())
}

func askForMarks(conn syscall.Conn) error {
	err := control(conn, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1) })
	if err != nil {
		return fmt.Errorf("ask for the marks of packets (Linux 5.19): %w", err)
	}
	return nil
}

// socketBuffer is how many octets may wait in a socket while the daemon has no time: a
// small datagram takes some 800, and of many machines some 200 each may come at once.
const socketBuffer = 1 << 20

// refuseFloods keeps what a machine sends too much of out of the socket's buffer,
// where it would leave no room for what others send.
func refuseFloods(conn syscall.Conn) error {
	const mark = 0xfffff000 + 20 // SKF_AD_OFF + SKF_AD_MARK of linux/filter.h
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: mark},
		{Code: ifEqual, K: frames.FloodMark, Jt: 1},
		{Code: pass, K: 1 << 16},
		{Code: pass, K: 0},
	}
	err := control(conn, func(fd int) error { return attach(fd, filter) })
	if err != nil {
		return fmt.Errorf("filter of a socket: %w", err)
	}
	return nil
}

// enlarge enlarges the buffer of a socket. Without CAP_NET_ADMIN it stays as it is.
func enlarge(conn syscall.Conn) {
	_ = control(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer)
	})
}

func attach(fd int, filter []unix.SockFilter) error {
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program)
}

func control(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}
