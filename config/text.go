package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"portcullis/internal/slog"
	"portcullis/internal/special"
	"portcullis/policy"
	"portcullis/portmap"
)

// The types of the values that stand as texts in the file. The error of an
// UnmarshalText returns what is wrong as the rest of a sentence that begins with
// the text, and ends with what is allowed. Where the default of a key is the
// empty text, the file may have it too, and no method is asked.

// Interface is the name of a network interface. The pointless "lo" is refused,
// because serving it would serve whoever can reach the gateway's own services.
type Interface string

// UnmarshalText checks the name.
func (i *Interface) UnmarshalText(text []byte) error {
	s := string(text)
	if link, alias, ok := strings.Cut(s, ":"); ok && isName(link, 15) && alias != "" {
		return fmt.Errorf("is an alias, which is only an address of %s; allowed: %s", quote(link), quote(link))
	}
	if s == "lo" || s == "." || s == ".." || len(s) < 1 || len(s) > 15 ||
		strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`/:*"`, c) }) {
		return errors.New(`is not an interface name; allowed: 1 to 15 characters, no spaces, none of / : * ", and not "lo"`)
	}
	*i = Interface(s)
	return nil
}

// Network is a masked prefix where hosts can live, and not half the Internet:
// everything inside counts as our own side of the wall.
type Network struct{ netip.Prefix }

// UnmarshalText reads it.
func (n *Network) UnmarshalText(text []byte) error {
	p, err := portmap.ParsePrefix(string(text))
	if err == nil && (p.Bits() < 8 || !special.Hosts(p.Addr())) {
		err = errors.New("is not a network of hosts")
	}
	if err != nil {
		return fmt.Errorf(`%w; allowed: a unicast network like "192.168.7.0/24" or "2001:db8:7::/64", with a prefix length of 8 or more`, err)
	}
	n.Prefix = p
	return nil
}

// LeaseFile is a file of a DHCP server: a path, with or without "format:" before
// it.
type LeaseFile string

// UnmarshalText checks both parts.
func (l *LeaseFile) UnmarshalText(text []byte) error {
	file := LeaseFile(text)
	path := file.Path()
	if format, named := strings.CutSuffix(string(text), ":"+path); named {
		var known string
		if err := word(&known, format, "dnsmasq", "odhcpd", "isc", "kea"); err != nil {
			return fmt.Errorf("has a format that %w", err)
		}
	}
	if err := checkPath(path, maxPath); err != nil {
		return err
	}
	*l = file
	return nil
}

// Path returns where it is.
func (l LeaseFile) Path() string {
	if _, rest, named := strings.Cut(string(l), ":"); named && l[0] != '/' {
		return rest
	}
	return string(l)
}

// HookEvent is one kind of event that the hook is told of, as `portcullis events` has it.
type HookEvent string

// UnmarshalText reads the word.
func (e *HookEvent) UnmarshalText(text []byte) error {
	return word(e, string(text), "pending", "approved", "denied", "revoked", "granted", "renewed", "deleted", "expired", "suspended", "resumed", "drift")
}

// PublicIP is an IPv4 address of the Internet; the zero value is none.
type PublicIP struct{ netip.Addr }

// UnmarshalText reads it.
func (p *PublicIP) UnmarshalText(text []byte) error {
	const allowed = `allowed: a public IPv4 address in numbers, or "" for the interface's own`
	a, err := netip.ParseAddr(string(text))
	switch {
	case err != nil && isHostName(string(text)):
		return errors.New("is a name, and names are not looked up; " + allowed)
	case err == nil && a.Is4() && !special.Public(a) && special.Hosts(a):
		return errors.New(`is not a public IPv4 address; allowed: "", and private_address = "allow" if the router upstream forwards ports to this gateway`)
	case err != nil || !a.Is4() || !special.Public(a):
		return errors.New("is not a public IPv4 address; " + allowed)
	}
	p.Addr = a
	return nil
}

// PrivateAddress is what to do on a WAN whose address nobody can reach.
type PrivateAddress string

// What a PrivateAddress can be.
const (
	RefusePrivate PrivateAddress = "refuse" // grant nothing
	AllowPrivate  PrivateAddress = "allow"  // serve all the same: somebody upstream passes the ports on
)

// UnmarshalText reads the word.
func (p *PrivateAddress) UnmarshalText(text []byte) error {
	return word(p, string(text), RefusePrivate, AllowPrivate)
}

// Nonce is who may renew a mapping that was made by PCP.
type Nonce string

// What a Nonce can be.
const (
	NonceSameClient Nonce = "same-client" // the same host, with any nonce
	NonceStrict     Nonce = "strict"      // who has the nonce (RFC 6887 section 11.3)
)

// UnmarshalText reads the word.
func (n *Nonce) UnmarshalText(text []byte) error {
	return word(n, string(text), NonceSameClient, NonceStrict)
}

// Backend is a kind of firewall.
type Backend string

// The backends.
const (
	BackendAuto     Backend = "auto"
	BackendNFTables Backend = "nftables"
	BackendIPTables Backend = "iptables"
)

// UnmarshalText reads the word.
func (b *Backend) UnmarshalText(text []byte) error {
	return word(b, string(text), BackendAuto, BackendNFTables, BackendIPTables)
}

// Mark is bits of a packet's mark; never 0.
type Mark uint32

// UnmarshalText reads a number in any of Go's bases.
func (m *Mark) UnmarshalText(text []byte) error {
	bits, err := strconv.ParseUint(string(text), 0, 32)
	if err != nil || bits == 0 {
		return errors.New(`is no mark; allowed: "0x1" to "0xffffffff"`)
	}
	*m = Mark(bits)
	return nil
}

// String returns it as people write bits.
func (m Mark) String() string { return fmt.Sprintf("%#x", uint32(m)) }

const (
	maxPath   = 1024
	maxSocket = 107 // sun_path of unix(7) has 108 bytes with its NUL
)

// Path is absolute and clean.
type Path string

// UnmarshalText checks the path.
func (p *Path) UnmarshalText(text []byte) error {
	if err := checkPath(string(text), maxPath); err != nil {
		return err
	}
	*p = Path(text)
	return nil
}

// Socket is a Path that is short enough for a unix socket.
type Socket string

// UnmarshalText checks the path.
func (p *Socket) UnmarshalText(text []byte) error {
	if err := checkPath(string(text), maxSocket); err != nil {
		return err
	}
	*p = Socket(text)
	return nil
}

func checkPath(s string, size int) error {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s || s == "/" || !isText(s, size) || len(s) > size {
		return fmt.Errorf(`is not a usable path; allowed: an absolute path without ".", ".." or doubled or final slashes, at most %d bytes`, size)
	}
	return nil
}

// Group is the name of a group of users.
type Group string

// UnmarshalText checks the name.
func (g *Group) UnmarshalText(text []byte) error {
	if !isName(string(text), 32) {
		return errors.New(`is not a group name; allowed: a letter or "_", then letters, digits, "_", "-" or ".", at most 32, or "" for root alone`)
	}
	*g = Group(text)
	return nil
}

// Loopback is an address of the machine's own that nobody else reaches, with a port; the zero
// value is none.
type Loopback struct{ netip.AddrPort }

// UnmarshalText reads it.
func (l *Loopback) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*l = Loopback{}
		return nil
	}
	at, err := netip.ParseAddrPort(string(text))
	if err != nil || !at.Addr().IsLoopback() || at.Addr().Zone() != "" || at.Port() == 0 {
		return errors.New(`is not a loopback address with a port; allowed: "127.0.0.1:9180", "[::1]:9180" and the like, or "" for none`)
	}
	l.AddrPort = at
	return nil
}

// SandboxMode is how the daemon guards itself against its own faults.
type SandboxMode string

// What a SandboxMode can be.
const (
	SandboxSplit  SandboxMode = "split"  // two, of which the one that parses what the network sends has no privilege
	SandboxSingle SandboxMode = "single" // one process, which keeps no privilege but what it needs
	SandboxOff    SandboxMode = "off"    // whatever it was started with
)

// UnmarshalText reads the word.
func (s *SandboxMode) UnmarshalText(text []byte) error {
	return word(s, string(text), SandboxSplit, SandboxSingle, SandboxOff)
}

// Level is how much is logged.
type Level string

// The levels.
const (
	LevelDebug Level = "debug"
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

// UnmarshalText reads the word.
func (l *Level) UnmarshalText(text []byte) error {
	return word(l, string(text), LevelDebug, LevelInfo, LevelWarn, LevelError)
}

// Level makes it a slog.Leveler.
func (l Level) Level() slog.Level {
	switch l {
	case LevelDebug:
		return slog.LevelDebug
	case LevelWarn:
		return slog.LevelWarn
	case LevelError:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// Format is how a line of the log is written.
type Format string

// The formats.
const (
	FormatText Format = "text"
	FormatJSON Format = "json"
	// FormatSyslog is FormatText with the priority of each line before it, and without the time.
	FormatSyslog Format = "syslog"
)

// UnmarshalText reads the word.
func (f *Format) UnmarshalText(text []byte) error {
	return word(f, string(text), FormatText, FormatJSON, FormatSyslog)
}

// maxLifetime is the longest lease that the wire can carry: 32 bits of seconds
// in all three protocols.
const maxLifetime = (1<<32 - 1) * time.Second

// parseDuration reads a duration of whole seconds.
func parseDuration(d *time.Duration, s string) error {
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New(`is not a duration; allowed: a number and its unit, like "90s", "30m" or "168h" (7 days)`)
	}
	if v < time.Second || v > maxLifetime || v%time.Second != 0 {
		return fmt.Errorf("is out of range; allowed: whole seconds from \"1s\" to %q", formatDuration(maxLifetime))
	}
	*d = v
	return nil
}

// formatDuration returns the short form: "168h", not "168h0m0s".
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

// parsePattern reads a regular expression.
func parsePattern(p **regexp.Regexp, s string) error {
	if s == "" || len(s) > policy.MaxPattern {
		return fmt.Errorf("has %d bytes; allowed: a regular expression of 1 to %d bytes", len(s), policy.MaxPattern)
	}
	re, err := regexp.Compile(s)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		return fmt.Errorf(`is not a regular expression (%s); allowed: RE2 syntax, like "^Plex"`, plain(why))
	}
	*p = re
	return nil
}

// word reads an element of a closed set.
func word[T ~string](p *T, s string, allowed ...T) error {
	if !slices.Contains(allowed, T(s)) {
		e := new(portmap.WordError)
		for _, w := range allowed {
			e.Allowed = append(e.Allowed, string(w))
		}
		return e
	}
	*p = T(s)
	return nil
}

// isText reports whether s has 1 to n characters and all can be printed.
func isText(s string, n int) bool {
	return s != "" && utf8.RuneCountInString(s) <= n &&
		!strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// isHostName reports whether s looks like a name that is to be looked up.
func isHostName(s string) bool {
	return strings.ContainsFunc(s, unicode.IsLetter) && !strings.ContainsAny(s, "/:")
}

// isName reports whether s is a plain identifier: a letter or "_", then letters,
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
