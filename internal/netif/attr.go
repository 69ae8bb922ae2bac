package netif

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// attributes walks the netlink attributes in b and stops at the first that does
// not fit: what the kernel sends is well formed, so the rest would be a guess.
// The type comes without the flags for nesting and byte order. Nothing is
// copied.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(len(b), (n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
		}
	}
}

// attrUint32 reads a 32-bit attribute in the host's order, 0 if it is too short.
func attrUint32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

// attrAddr reads an address attribute, zero if it has neither length.
func attrAddr(v []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(v)
	return a
}
