package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"portcullis/portmap"
)

const (
	maxDir    = 1024
	maxSocket = 107 // sun_path of unix(7) has 108 bytes with its NUL
)

// maxLifetime is the longest lease that the wire can carry: 32 bits of seconds
// in all three protocols.
const maxLifetime = (1<<32 - 1) * time.Second

// lifetime reads a duration of whole seconds.
func (r *reader) lifetime(path, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		r.fail(path, "%s is not a duration; allowed: a number and its unit, like \"90s\", \"30m\" or \"168h\" (7 days)", quote(s))
		return 0
	}
	if d < time.Second || d > maxLifetime || d%time.Second != 0 {
		r.fail(path, "%s is out of range; allowed: whole seconds from \"1s\" to %s", quote(s), quote(formatDuration(maxLifetime)))
		return 0
	}
	return d
}

// formatDuration gives the short form: "168h", not "168h0m0s".
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parsePrefix reads a network; why says what is wrong with it, or "".
func parsePrefix(s string) (p netip.Prefix, why string) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, "is not a network"
	case p.Addr().Is4In6():
		return netip.Prefix{}, "is an IPv4 network in IPv6 form"
	case p != p.Masked():
		return netip.Prefix{}, "has host bits set, the network is " + quote(p.Masked().String())
	}
	return p, ""
}

// fitsLAN says whether hosts can live in p, and that p is not half the
// Internet: everything inside counts as our own side of the wall.
func fitsLAN(p netip.Prefix) bool {
	a := p.Addr()
	if p.Bits() < 8 || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return false
	}
	return !a.Is4() || !inAny(a, special4)
}

// What is no address of a host, anywhere.
var special4 = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, reserved, broadcast
}

// What is an address of a host, but not on the Internet. The ranges for documentation
// are missing on purpose: they count as public, so that labs may use them.
var private4 = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
}

// isPublic4 says whether a can be an address of ours on the Internet.
func isPublic4(a netip.Addr) bool {
	return a.Is4() && !inAny(a, special4) && !inAny(a, private4)
}

func inAny(a netip.Addr, set []netip.Prefix) bool {
	for _, p := range set {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parsePorts reads "80" or "8000-8999".
func parsePorts(s string) (portmap.PortRange, bool) {
	first, last, ranged := strings.Cut(s, "-")
	if !ranged {
		last = first
	}
	a, okA := parsePort(first)
	b, okB := parsePort(last)
	return portmap.PortRange{First: a, Last: b}, okA && okB && a <= b
}

func formatPorts(p portmap.PortRange) string {
	if p.First == p.Last {
		return utoa(p.First)
	}
	return utoa(p.First) + "-" + utoa(p.Last)
}

// parsePort takes plain digits only; Go's own form would take "+80" and "080".
func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0 && utoa(uint16(n)) == s
}

// isText says whether s has 1 to n characters and all can be printed.
func isText(s string, n int) bool {
	return s != "" && utf8.RuneCountInString(s) <= n &&
		!strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// path checks an absolute path of at most size bytes.
func (r *reader) path(key, s string, size int) string {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s || s == "/" || len(s) > size || !isText(s, size) {
		r.fail(key, "%s is not a usable path; allowed: an absolute path without \".\", \"..\" or doubled or final slashes, at most %d bytes", quote(s), size)
	}
	return s
}

// isName says whether s is a plain identifier: a letter or "_", then letters,
// digits and "_", "-", ".".
func isName(s string, n int) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '-' || c == '.')) {
			return false
		}
	}
	return s != "" && len(s) <= n
}

func (r *reader) group(key, s string) string {
	if s != "" && !isName(s, 32) {
		r.fail(key, "%s is not a group name; allowed: a letter or \"_\", then letters, digits, \"_\", \"-\" or \".\", at most 32, or \"\" for root alone", quote(s))
	}
	return s
}

// ownTable is the table of firewall/nft, where a jump to ourselves would loop.
const ownTable = "portcullis"

// chain reads "family table chain". The names go into netlink messages and
// into remedies that people paste into a shell, so they are plain.
func (r *reader) chain(key, s string, families ...string) Chain {
	if s == "" {
		return Chain{}
	}
	form := `a family (` + strings.Join(families, " or ") + `), a table and a chain, like "inet fw4 forward", or ""`
	w := strings.Split(s, " ")
	if len(w) != 3 || !isName(w[1], 128) || !isName(w[2], 128) {
		r.fail(key, "%s is not a chain; allowed: %s", quote(s), form)
		return Chain{}
	}
	if !slices.Contains(families, w[0]) {
		r.fail(key, "%s is not a family whose forward chain sees these packets; allowed: %s", quote(w[0]), form)
		return Chain{}
	}
	if w[1] == ownTable {
		r.fail(key, "%s is our own table; allowed: the table of the host's firewall", quote(w[1]))
		return Chain{}
	}
	return Chain{Family: w[0], Table: w[1], Name: w[2]}
}

// listen reads an address and port in numbers.
func (r *reader) listen(key, s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() {
		r.fail(key, "%s is not a place to listen; allowed: one address and port in numbers, like \"127.0.0.1:9180\", or \"\" for off", quote(s))
		return netip.AddrPort{}
	}
	return ap
}
