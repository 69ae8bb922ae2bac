package witness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket opens one that sees the frames that bring datagrams to a place.
func packetSocket(at Place) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "packet socket")
	protocol, filter := uint16(unix.ETH_P_IP), filter4(at.Port)
	if at.IPv6 {
		protocol, filter = unix.ETH_P_IPV6, filter6(at.Port)
	}
	enlarge(file)
	// Until it is bound to a protocol it sees nothing, so the filter comes in time.
	err = attach(fd, filter)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: at.Ifindex})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket: %w", err), file.Close())
	}
	return file, nil
}

// packetSockets returns why there can be none.
func packetSockets() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// The filters pass whole UDP datagrams to a port. The packet begins at its network
// header (SOCK_DGRAM).
const (
	loadByte   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
	loadHalf   = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
	loadHalfAt = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
	headerLen  = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
	ifEqual    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	ifAnyBit   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	pass       = unix.BPF_RET | unix.BPF_K
	ip6Header  = 40
	fragment   = 0x3fff // of the IPv4 flags and offset: one of several
)

func filter4(port uint16) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: loadByte, K: 9},
		{Code: ifEqual, K: unix.IPPROTO_UDP, Jf: 6},
		{Code: loadHalf, K: 6},
		{Code: ifAnyBit, K: fragment, Jt: 4},
		{Code: headerLen, K: 0},
		{Code: loadHalfAt, K: 2},
		{Code: ifEqual, K: uint32(port), Jf: 1},
		{Code: pass, K: 1 << 16},
		{Code: pass, K: 0},
	}
}

func filter6(port uint16) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: loadByte, K: 6},
		{Code: ifEqual, K: unix.IPPROTO_UDP, Jf: 3},
		{Code: loadHalf, K: ip6Header + 2},
		{Code: ifEqual, K: uint32(port), Jf: 1},
		{Code: pass, K: 1 << 16},
		{Code: pass, K: 0},
	}
}
