package datagram

import (
	"encoding/binary"
	"syscall"
)

// markRoom is what the control message of a mark takes.
var markRoom = syscall.CmsgSpace(4)

// markIn returns the mark that the kernel had on a packet, 0 when it was not asked
// for it (SO_RCVMARK, Linux 5.19).
func markIn(oob []byte) uint32 {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SO_MARK && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)
		}
	}
	return 0
}
