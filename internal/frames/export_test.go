package frames

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"golang.org/x/sys/unix"
)

// Flooded returns how many frames are taken in one go from a socket that has another one
// most times, and how many are remembered.
func Flooded(most int) (taken, remembered int) {
	c := &packetConn{seed: maphash.MakeSeed(), buf: make([]byte, 1500)}
	c.takeAll(time.Now(), len(c.buf), func(b []byte) (int, unix.Sockaddr, error) {
		if taken == most {
			return 0, nil, unix.EAGAIN
		}
		taken++
		clear(b[:ip4Header+udpHeader])
		b[0] = 0x45
		binary.BigEndian.PutUint16(b[ip4Header:], uint16(taken)) // another source port
		binary.BigEndian.PutUint16(b[ip4Header+4:], udpHeader)
		return ip4Header + udpHeader, &unix.SockaddrLinklayer{Hatype: unix.ARPHRD_ETHER, Halen: 6}, nil
	})
	return taken, len(c.seen)
}
