package dhcp

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portcullis/portmap"
)

// Lease is one address that a DHCP server has given to a device.
type Lease struct {
	MAC     portmap.MAC // of one device, never zero
	Addr    netip.Addr  // unmapped, without zone
	Name    string      // what the device calls itself, or ""; see the package documentation
	Expires time.Time   // zero: never, or not known
}

// over reports whether the lease has ended.
func (l *Lease) over(now time.Time) bool { return !l.Expires.IsZero() && !now.Before(l.Expires) }

// outlasts reports whether l ends after other.
func (l *Lease) outlasts(other *Lease) bool {
	return !other.Expires.IsZero() && (l.Expires.IsZero() || l.Expires.After(other.Expires))
}

// Bounds of what is read.
const (
	MaxFile   = 1 << 20  // bytes of a file
	MaxLeases = 4096     // of a file
	maxLine   = 16 << 10 // bytes; Kea keeps its user's context in a line
	maxName   = 253      // RFC 1035 section 2.3.4, as text
	maxLabel  = 63
)

// Parsed is what a file holds.
type Parsed struct {
	Leases  []Lease // at most MaxLeases, one for an address
	Damaged int     // lines, or blocks of ISC, that cannot be understood
	Left    int     // leases for which there was no room
}

// collector gathers leases; of one address the last word counts.
type collector struct {
	leases  []Lease // one without a MAC has gone
	at      map[netip.Addr]int
	damaged int
	left    int
}

func newCollector() *collector { return &collector{at: make(map[netip.Addr]int)} }

// put takes in a lease; one without a MAC ends that of its address.
func (c *collector) put(l *Lease) {
	i, known := c.at[l.Addr]
	switch {
	case known:
		c.leases[i] = *l
	case l.MAC == portmap.MAC{}:
	case len(c.leases) >= MaxLeases:
		c.left++
	default:
		c.at[l.Addr] = len(c.leases)
		c.leases = append(c.leases, *l)
	}
}

func (c *collector) parsed() Parsed {
	p := Parsed{Damaged: c.damaged, Left: c.left}
	for i := range c.leases {
		if c.leases[i].MAC != (portmap.MAC{}) {
			p.Leases = append(p.Leases, c.leases[i])
		}
	}
	return p
}

// lines calls each with the lines that are not blank; longer ones than maxLine, and
// those for which it says false, are damaged.
func (c *collector) lines(text string, each func(line string) bool) {
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		if line = strings.TrimSpace(line); line != "" && (len(line) > maxLine || !each(line)) {
			c.damaged++
		}
	}
}

// hostName returns a name as it may be used, or "".
func hostName(s string) string {
	s = strings.TrimSuffix(s, ".")
	if len(s) > maxName {
		return ""
	}
	label, word := 0, false
	for _, b := range []byte(s) {
		switch {
		case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9':
			word = true
		case b == '.' && label > 0:
			label = 0
			continue
		case b != '-' && b != '_':
			return ""
		}
		if label++; label > maxLabel {
			return ""
		}
	}
	if label == 0 || !word { // "*" and "-" stand for no name
		return ""
	}
	return s
}

// hardware reads a MAC in the colon form; what is not that of one device is zero.
func hardware(s string) portmap.MAC {
	mac, err := portmap.ParseMAC(s)
	if err != nil {
		return portmap.MAC{}
	}
	return ofDevice(mac)
}

// ofDevice returns mac, or zero where its first bit marks a group.
func ofDevice(mac portmap.MAC) portmap.MAC {
	if mac[0]&1 != 0 {
		return portmap.MAC{}
	}
	return mac
}

// unhex reads octets in hexadecimal, with or without colons between them; nil is no
// such text, or too long for a DUID (RFC 8415 section 11.1).
func unhex(s string) []byte {
	const most = 130
	if len(s) > 3*most {
		return nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) > most {
		return nil
	}
	return b
}

// duidMAC returns the MAC in a DUID that is made of one (RFC 8415 sections 11.2 and
// 11.4), or zero. It is as true as what the client says in DHCP for IPv4.
func duidMAC(s string) portmap.MAC {
	const llt, ll = "\x00\x01\x00\x01", "\x00\x03\x00\x01" // of Ethernet
	b := unhex(s)
	switch {
	case len(b) == 14 && string(b[:4]) == llt:
		return ofDevice(portmap.MAC(b[8:]))
	case len(b) == 10 && string(b[:4]) == ll:
		return ofDevice(portmap.MAC(b[4:]))
	}
	return portmap.MAC{}
}

// address reads an address of a host.
func address(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil && isHost(a)
}

func isHost(a netip.Addr) bool {
	return a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast()
}

// seconds reads a time since 1970; 40 bits of it are more than enough and cannot
// overflow.
func seconds(s string) (time.Time, bool) {
	n, err := strconv.ParseUint(s, 10, 40)
	return time.Unix(int64(n), 0), err == nil
}
