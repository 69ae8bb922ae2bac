package soap

import (
	"errors"
	"strconv"
	"strings"
)

// ErrType means that a value is not of the type it should be; a 402 fault.
var ErrType = errors.New("not a value of this type")

// maxDigits allows leading zeros, which are legal, within reason.
const maxDigits = 16

// ParseUI2 reads an unsigned 16-bit number: decimal digits only, the whole value
// (abuse case B6). XML blanks around it are passed over, leading zeros are
// allowed, and so is nothing else: no sign, no base, no fraction.
func ParseUI2(s string) (uint16, error) {
	n, err := parseUnsigned(s, 16)
	return uint16(n), err
}

// ParseUI4 is ParseUI2 for 32 bits.
func ParseUI4(s string) (uint32, error) {
	n, err := parseUnsigned(s, 32)
	return uint32(n), err
}

// parseUnsigned does not use goupnp's Unmarshal functions: those accept a sign.
func parseUnsigned(s string, bits int) (uint64, error) {
	s = strings.Trim(s, " \t\r\n")
	if s == "" || len(s) > maxDigits {
		return 0, ErrType
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, ErrType
		}
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0, ErrType
	}
	return n, nil
}

// ParseBoolean reads 0, 1, true, false, yes, no, in any case (UDA 1.1 section
// 2.5 has the words deprecated but to be accepted).
func ParseBoolean(s string) (bool, error) {
	switch strings.ToLower(strings.Trim(s, " \t\r\n")) {
	case "1", "true", "yes":
		return true, nil
	case "0", "false", "no":
		return false, nil
	}
	return false, ErrType
}

// FormatBoolean writes 0 or 1, the one form every client reads.
func FormatBoolean(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
