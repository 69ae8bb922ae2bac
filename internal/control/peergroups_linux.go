package control

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is more than any sane user has (NGROUPS_MAX is 65 536).
const maxGroups = 1024

// supplementary returns the peer's supplementary groups (SO_PEERGROUPS, Linux
// 4.13); a kernel without it knows only the primary group.
func supplementary(fd int) []uint32 {
	groups := make([]uint32, maxGroups)
	size := uint32(len(groups) * 4)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	return groups[:size/4]
}
