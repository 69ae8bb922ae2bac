package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"portcullis/portmap"
)

// ClientMatch recognises clients in one way: exactly one field is set.
type ClientMatch struct {
	MAC       portmap.MAC
	Prefix    netip.Prefix // a single address is a /32 or /128
	Host      string       // a glob as in path.Match, of the client's name, letter case apart; a client may choose its name
	Interface string       // a LAN interface
}

// What stands before the name in the text of a ClientMatch.
const (
	hostTag      = "host:"
	interfaceTag = "iface:"
)

const clientForm = `a MAC like "aa:bb:cc:dd:ee:ff", a network like "192.168.1.64/26", an address, "host:cam-*" or "iface:br-iot"`

// UnmarshalText reads one element of a rule's clients. Its error is what is
// wrong as the rest of a sentence that begins with the text. Which names an
// interface can have is not asked here.
func (m *ClientMatch) UnmarshalText(text []byte) error {
	s := string(text)
	if name, ok := strings.CutPrefix(s, interfaceTag); ok && name != "" {
		*m = ClientMatch{Interface: name}
		return nil
	}
	if glob, ok := strings.CutPrefix(s, hostTag); ok {
		if !isHostGlob(glob) {
			return errors.New(`is not a host name; allowed: letters, digits, "-", ".", "_", and * and ? as wildcards`)
		}
		*m = ClientMatch{Host: strings.ToLower(glob)}
		return nil
	}
	if mac, err := portmap.ParseMAC(s); err == nil {
		// The first bit marks a group: no device has such an address of its own.
		if mac == (portmap.MAC{}) || mac[0]&1 != 0 {
			return errors.New("is not the MAC of a device; allowed: " + clientForm)
		}
		*m = ClientMatch{MAC: mac}
		return nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		*m = ClientMatch{Prefix: netip.PrefixFrom(a, a.BitLen())}
		return nil
	}
	if !strings.Contains(s, "/") {
		if isHostGlob(s) && strings.Trim(s, "0123456789abcdefABCDEF-.") != "" {
			return fmt.Errorf("is not a client; the name of a device is written %q; allowed: %s", hostTag+s, clientForm)
		}
		return errors.New("is not a client; allowed: " + clientForm)
	}
	p, err := portmap.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%w; allowed: %s", err, clientForm)
	}
	*m = ClientMatch{Prefix: p}
	return nil
}

// String returns the text that UnmarshalText reads.
func (m ClientMatch) String() string {
	switch {
	case m.MAC != portmap.MAC{}:
		return m.MAC.String()
	case m.Prefix.IsValid():
		return m.Prefix.String()
	case m.Host != "":
		return hostTag + m.Host
	}
	return interfaceTag + m.Interface
}

// isHostGlob reports whether s is a host name with * and ? in it (RFC 1123
// section 2.1 for the length).
func isHostGlob(s string) bool {
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && !(c >= '0' && c <= '9') && !strings.ContainsRune("-._*?", rune(c)) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= maxHost
}

// matches reports whether the client is meant.
func (m *ClientMatch) matches(c *portmap.Client) bool {
	switch {
	case m.MAC != portmap.MAC{}:
		return m.MAC == c.MAC
	case m.Prefix.IsValid():
		return m.Prefix.Contains(c.Addr)
	case m.Host != "":
		if c.Name == "" || len(c.Name) > maxHost {
			return false
		}
		ok, err := path.Match(m.Host, strings.ToLower(c.Name))
		return ok && err == nil
	}
	return m.Interface != "" && m.Interface == c.Interface
}

// compile checks one client condition and makes a host glob lower case.
func (m *ClientMatch) compile() error {
	set := 0
	for _, is := range []bool{m.MAC != portmap.MAC{}, m.Prefix != netip.Prefix{}, m.Host != "", m.Interface != ""} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("a client is one of a MAC, a prefix, a host name and an interface, not %d of them", set)
	}
	if m.Prefix != (netip.Prefix{}) && (!m.Prefix.IsValid() || m.Prefix.Addr().Is4In6()) {
		return fmt.Errorf("%s is not a network that a client can be in", m.Prefix)
	}
	if len(m.Host) > maxHost {
		return fmt.Errorf("a host pattern is longer than %d bytes", maxHost)
	}
	m.Host = strings.ToLower(m.Host)
	if _, err := path.Match(m.Host, ""); err != nil {
		return fmt.Errorf("host pattern %q: %w", m.Host, err)
	}
	return nil
}
