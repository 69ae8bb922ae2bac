package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The text forms that the configuration uses. The error of a method here says
// what is wrong as the rest of a sentence that begins with the text, and ends
// with what is allowed.

// WordError says that a text is none of the words of a closed set.
type WordError struct {
	Allowed []string
}

// Error lists the words.
func (e *WordError) Error() string {
	quoted := make([]string, len(e.Allowed))
	for i, w := range e.Allowed {
		quoted[i] = strconv.Quote(w)
	}
	return "is unknown; allowed: " + strings.Join(quoted, ", ")
}

// UnmarshalText reads the word of an action.
func (a *Action) UnmarshalText(text []byte) error {
	switch string(text) {
	case "allow":
		*a = Allow
	case "ask":
		*a = Ask
	case "deny":
		*a = Deny
	default:
		return &WordError{[]string{"allow", "ask", "deny"}}
	}
	return nil
}

// UnmarshalText reads "tcp" or "udp".
func (t *Transport) UnmarshalText(text []byte) error {
	switch string(text) {
	case "tcp":
		*t = TCP
	case "udp":
		*t = UDP
	default:
		return &WordError{[]string{"tcp", "udp"}}
	}
	return nil
}

// UnmarshalText reads the name of a protocol. The owner is none.
func (v *Via) UnmarshalText(text []byte) error {
	switch string(text) {
	case "upnp":
		*v = ViaUPnP
	case "natpmp":
		*v = ViaNATPMP
	case "pcp":
		*v = ViaPCP
	default:
		return &WordError{[]string{"upnp", "natpmp", "pcp"}}
	}
	return nil
}

// UnmarshalText reads "80" or "8000-8999".
func (r *PortRange) UnmarshalText(text []byte) error {
	first, last, ranged := strings.Cut(string(text), "-")
	if !ranged {
		last = first
	}
	a, b := parsePort(first), parsePort(last)
	if a > b && b > 0 {
		return fmt.Errorf("is a range backwards; allowed: the lower port first, \"%d-%d\"", b, a)
	}
	if a == 0 || b == 0 {
		return errors.New(`is not a port or a range; allowed: 1 to 65535, like "80" or "8000-8999"`)
	}
	*r = PortRange{First: a, Last: b}
	return nil
}

// String returns the same form.
func (r PortRange) String() string {
	first := strconv.Itoa(int(r.First))
	if r.First == r.Last {
		return first
	}
	return first + "-" + strconv.Itoa(int(r.Last))
}

// parsePort takes plain digits only; Go's own form would take "+80" and "080".
// It returns 0 for what is no port.
func parsePort(s string) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0
	}
	return uint16(n)
}

// ParsePrefix reads a network as a person writes it, who is told of host bits
// rather than having them cut off.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, errors.New("is not a network")
	case p.Addr().Is4In6():
		return netip.Prefix{}, errors.New("is an IPv4 network in IPv6 form")
	case p != p.Masked():
		return netip.Prefix{}, errors.New("has host bits set, the network is " + strconv.Quote(p.Masked().String()))
	}
	return p, nil
}
