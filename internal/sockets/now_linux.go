package sockets

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below are for descriptors that do not wait (O_NONBLOCK), and the runtime is not
// told of them. When the kernel sets a thread aside in the middle of a call, for whoever its
// octets have woken, the runtime would take the processor away from it and give it to
// another thread; that costs both, and each request anew, more than the call
// (docs/performance.md).

// WriteNow is write(2).
func WriteNow(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return now(unix.SYS_WRITE, fd, unsafe.Pointer(&p[0]), uintptr(len(p)))
}

// SendNow is sendmsg(2) of a datagram, which is not empty, with control messages. A
// destination has no zone: the socket is bound to its link.
func SendNow(fd int, p, control []byte, to netip.AddrPort) error {
	var name unix.RawSockaddrInet6 // has room for the other one
	size := uint32(unix.SizeofSockaddrInet6)
	port := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, to.Port()))
	if to.Addr().Is4() {
		size = unix.SizeofSockaddrInet4
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&name)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: to.Addr().As4()} // #nosec G103 -- it has room
	} else {
		name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
	}
	part := unix.Iovec{Base: unsafe.SliceData(p)}
	part.SetLen(len(p))
	m := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&name)), Namelen: size, Iov: &part} // #nosec G103 -- as x/sys does
	m.SetIovlen(1)
	if len(control) > 0 {
		m.Control = unsafe.SliceData(control)
		m.SetControllen(len(control))
	}
	_, err := now(unix.SYS_SENDMSG, fd, unsafe.Pointer(&m), unix.MSG_DONTWAIT)
	return err
}

// CloseNow is close(2) of a socket whose end nobody waits for (no SO_LINGER).
func CloseNow(fd int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// now makes a call until no signal has come between.
func now(call uintptr, fd int, at unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(at), size) // #nosec G103 -- as x/sys does
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
