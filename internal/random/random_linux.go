package random

import (
	"encoding/hex"
	"errors"

	"golang.org/x/sys/unix"
)

// Fill makes all of b random.
func Fill(b []byte) {
	for len(b) > 0 {
		n, err := unix.Getrandom(b, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic("the kernel has no random octets: " + err.Error())
		}
		b = b[max(n, 0):]
	}
}

// Text returns a word that nobody can guess, of hexadecimal digits.
func Text() string {
	var b [16]byte
	Fill(b[:])
	return hex.EncodeToString(b[:])
}
