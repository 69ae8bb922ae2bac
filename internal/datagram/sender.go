package datagram

import (
	"fmt"
	"slices"
)

// Sender is the link-layer address that a frame came from, or as many of its last
// octets as are known. It is comparable; the zero Sender was not seen.
type Sender struct {
	MAC   [6]byte // octets that are not known are 0
	Known int     // octets that are known, the last ones: 0 to 6
}

// Seen reports whether anything is known of the sender.
func (s Sender) Seen() bool { return s.Known > 0 }

// Is reports whether the sender has this MAC address, as far as it is known.
func (s Sender) Is(mac [6]byte) bool {
	return s.Seen() && slices.Equal(s.MAC[len(s.MAC)-s.Known:], mac[len(mac)-s.Known:])
}

// String returns the usual colon form, with ".." for octets that are not known.
func (s Sender) String() string {
	text := ""
	for i, octet := range s.MAC {
		if i > 0 {
			text += ":"
		}
		if i < len(s.MAC)-s.Known {
			text += ".."
		} else {
			text += fmt.Sprintf("%02x", octet)
		}
	}
	return text
}
