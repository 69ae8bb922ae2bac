package sockets

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below are for descriptors that do not wait (O_NONBLOCK), and the runtime is not
// told of them. It would have its own thread look, each time that something begins, whether
// the call comes to an end; and when the kernel sets a thread aside in the middle of one, for
// whoever its octets have woken, it would take the processor away from it and give it to
// another thread. Each costs more than the call (docs/performance.md).

// ReadNow is read(2).
func ReadNow(fd int, p []byte) (int, error) {
	return now(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)))
}

// WriteNow is write(2), of something: nothing would be a message, too.
func WriteNow(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return now(unix.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)))
}

// ReadStartNow and WriteStartNow are pread(2) and pwrite(2) at the beginning of a file that
// is in memory.
func ReadStartNow(fd int, p []byte) (int, error) { return atStart(unix.SYS_PREAD64, fd, p) }

// WriteStartNow writes; see ReadStartNow.
func WriteStartNow(fd int, p []byte) (int, error) { return atStart(unix.SYS_PWRITE64, fd, p) }

// atStart passes an offset that is 0 in whichever registers it is.
func atStart(call uintptr, fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0) // #nosec G103 -- as x/sys does
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// AcceptNow is accept4(2). The other end of the new socket is not IPv4-mapped, and is zero
// where it is no IP socket.
func AcceptNow(fd int) (int, netip.AddrPort, error) {
	var name unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)), // #nosec G103 -- as x/sys does
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int(n), endOf(&name), nil
		case unix.EINTR:
		default:
			return -1, netip.AddrPort{}, errno
		}
	}
}

// LocalNow is getsockname(2), as AcceptNow tells the other end.
func LocalNow(fd int) (netip.AddrPort, error) {
	var name unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size))) // #nosec G103 -- as x/sys does
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return endOf(&name), nil
}

// Datagram is what recvmsg(2) says of one.
type Datagram struct {
	Size, Control int // octets of it, and of its control messages
	Flags         int // MSG_TRUNC, say
	From          netip.AddrPort
}

// ReceiveNow is recvmsg(2). Descriptors that come are closed by execve(2).
func ReceiveNow(fd int, p, control []byte) (Datagram, error) {
	var name unix.RawSockaddrAny
	part := unix.Iovec{Base: unsafe.SliceData(p)}
	part.SetLen(len(p))
	m := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&name)), Namelen: unix.SizeofSockaddrAny, Iov: &part} // #nosec G103 -- as x/sys does
	m.SetIovlen(1)
	if len(control) > 0 {
		m.Control = unsafe.SliceData(control)
		m.SetControllen(len(control))
	}
	n, err := now(unix.SYS_RECVMSG, fd, unsafe.Pointer(&m), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return Datagram{}, err
	}
	return Datagram{Size: n, Control: int(m.Controllen), Flags: int(m.Flags &^ unix.MSG_CMSG_CLOEXEC), From: endOf(&name)}, nil
}

// endOf returns an end of a socket, IPv4 without its IPv6 form, and a zone as a number. It is
// the zero value for what is no IP socket.
func endOf(name *unix.RawSockaddrAny) netip.AddrPort {
	switch name.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(name)) // #nosec G103 -- the family says so
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), swapped(a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(name)) // #nosec G103 -- likewise
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.Scope_id != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(a.Scope_id), 10))
		}
		return netip.AddrPortFrom(addr, swapped(a.Port))
	}
	return netip.AddrPort{}
}

// swapped turns a port between the order of the network and that of the machine.
func swapped(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// SendNow is sendmsg(2) of a datagram, which is not empty, with control messages. A
// destination has no zone: the socket is bound to its link.
func SendNow(fd int, p, control []byte, to netip.AddrPort) error {
	var name unix.RawSockaddrInet6 // has room for the other one
	size := uint32(unix.SizeofSockaddrInet6)
	port := swapped(to.Port())
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
