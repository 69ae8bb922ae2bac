package config

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"regexp"
	"strings"

	"portcullis/internal/special"
	"portcullis/portmap"
)

// What UPnP's description says of the gateway. UDA 1.1 section 2.3 has the lengths.

// Label is what control points show: 1 to 63 printable characters.
type Label string

// UnmarshalText checks it.
func (l *Label) UnmarshalText(text []byte) error {
	if !isText(string(text), 63) {
		return errors.New("cannot be shown as a name; allowed: 1 to 63 printable characters")
	}
	*l = Label(text)
	return nil
}

// LongLabel is a Label of 1 to 127 characters.
type LongLabel string

// UnmarshalText checks it.
func (l *LongLabel) UnmarshalText(text []byte) error {
	if !isText(string(text), 127) {
		return errors.New("cannot be shown as a description; allowed: 1 to 127 printable characters")
	}
	*l = LongLabel(text)
	return nil
}

// URL is a link to a page, which control points open for people.
type URL string

// maxURL is how many octets a URL may have.
const maxURL = 255

// linkForm is a host of any kind, perhaps a port, and what comes behind them.
var linkForm = regexp.MustCompile(`^(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?#][!-~]*)?$`)

// UnmarshalText checks it. Another scheme than HTTP would have a browser do something, as
// "javascript:" does.
func (u *URL) UnmarshalText(text []byte) error {
	if !linkForm.Match(text) || len(text) > maxURL {
		return errors.New(`is not a link; allowed: "http://..." or "https://..." without blanks, at most 255 bytes of ASCII, or "" for none`)
	}
	*u = URL(text)
	return nil
}

// UUID is a UUID in lower case, or "mac:" and the interface whose MAC address it is made of.
type UUID string

// UnmarshalText reads either form.
func (u *UUID) UnmarshalText(text []byte) error {
	s := strings.ToLower(string(text))
	if name, ok := strings.CutPrefix(string(text), "mac:"); ok {
		var i Interface
		if err := i.UnmarshalText([]byte(name)); err != nil {
			return err
		}
		*u = UUID(text)
		return nil
	}
	if !isUUID(s) || strings.Trim(s, "0-") == "" {
		return errors.New(`is not a UUID; allowed: "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" in hexadecimal digits, not all of them 0, "mac:INTERFACE" for one made of that interface's MAC address, or "" for one of its own`)
	}
	*u = UUID(s)
	return nil
}

// OfMAC returns the interface whose MAC address the UUID is made of; "": of none.
func (u UUID) OfMAC() string {
	name, ok := strings.CutPrefix(string(u), "mac:")
	if !ok {
		return ""
	}
	return name
}

func isUUID(s string) bool {
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return err == nil && len(raw) == 16 && len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
}

// Host is the address of a host, or a network of some.
type Host struct{ netip.Prefix }

// UnmarshalText reads it.
func (h *Host) UnmarshalText(text []byte) error {
	const allowed = `allowed: an address like "192.168.1.20", or a network like "192.168.1.64/26"`
	p, err := portmap.ParsePrefix(string(text))
	if a, failed := netip.ParseAddr(string(text)); failed == nil && a.Zone() == "" && !a.Is4In6() {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return errors.New(err.Error() + "; " + allowed)
	}
	if p.Bits() > 0 && !special.Hosts(p.Addr()) && !(p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()) {
		return errors.New("has no hosts; " + allowed)
	}
	h.Prefix = p
	return nil
}

// String returns the shortest form.
func (h Host) String() string {
	if h.IsSingleIP() {
		return h.Addr().String()
	}
	return h.Prefix.String()
}

// MarshalText is String.
func (h Host) MarshalText() ([]byte, error) { return []byte(h.String()), nil }
