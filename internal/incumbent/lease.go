package incumbent

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portcullis/policy"
	"portcullis/portmap"
)

// lease is a mapping that miniupnpd has written down, or a line that is none.
type lease struct {
	line        int
	bad         bool
	transport   portmap.Transport
	external    uint16 // 0 of a pinhole
	target      netip.AddrPort
	remote      netip.Addr // zero: any
	remotePort  uint16
	expiry      uint64 // see left; 0: never
	description string
}

// leaseLines reads lines of lease files. One that is damaged is noted, and stops nothing:
// clients ask again for what is in them.
func (f *File) leaseLines(lines []string) {
	for i, line := range lines {
		if line == "" {
			continue
		}
		l, ok := leaseOf(line)
		l.line, l.bad = i+1, !ok
		f.leases = append(f.leases, l)
	}
}

func leaseOf(line string) (l lease, ok bool) {
	if len(line) < 4 || l.transport.UnmarshalText([]byte(strings.ToLower(line[:3]))) != nil {
		return l, false
	}
	rest := line[4:]
	if line[3] == ';' {
		return l, l.six(strings.SplitN(rest, ";", 7))
	}
	return l, l.four(strings.SplitN(rest, ":", 6))
}

// four reads PORT:ADDRESS:PORT:EXPIRY:TEXT, where newer versions have the remote host before
// the address. The text may have colons, so their number says nothing.
func (l *lease) four(w []string) bool {
	if len(w) == 6 {
		if _, err := netip.ParseAddr(w[2]); err == nil {
			if w[1] != "" && w[1] != "*" {
				if l.remote, err = netip.ParseAddr(w[1]); err != nil {
					return false
				}
			}
			return l.rest(w[0], w[2], w[3], w[4], w[5])
		}
		w = append(w[:4:4], w[4]+":"+w[5])
	}
	return len(w) == 5 && l.rest(w[0], w[1], w[2], w[3], w[4])
}

func (l *lease) rest(external, address, port, expiry, text string) bool {
	ok := number(&l.external, external) && l.external != 0 && l.to(address, port, expiry, text)
	return ok && l.target.Addr().Is4() && (!l.remote.IsValid() || l.remote.Is4())
}

// six reads CLIENT;PORT;REMOTE;PORT;UID;EXPIRY;TEXT.
func (l *lease) six(w []string) bool {
	if len(w) != 7 || !l.to(w[0], w[1], w[5], w[6]) || !l.target.Addr().Is6() || w[3] != "" && !number(&l.remotePort, w[3]) {
		return false
	}
	remote, err := netip.ParseAddr(w[2])
	if err != nil && w[2] != "" && w[2] != "*" {
		return false
	}
	if err == nil && !remote.IsUnspecified() {
		l.remote = remote
	}
	return !l.remote.IsValid() || l.remote.Is6() && !l.remote.Is4In6() && l.remote.Zone() == ""
}

func (l *lease) to(address, port, expiry, text string) bool {
	addr, err := netip.ParseAddr(address)
	var inside uint16
	if err != nil || addr.Zone() != "" || addr.Is4In6() || !number(&inside, port) || inside == 0 {
		return false
	}
	l.expiry, err = strconv.ParseUint(expiry, 10, 32)
	l.target, l.description = netip.AddrPortFrom(addr, inside), text
	return err == nil
}

func number(n *uint16, word string) bool {
	v, err := strconv.ParseUint(word, 10, 16)
	*n = uint16(v)
	return err == nil
}

// left returns how long a lease has to go; 0 is none, and never is forever. Some builds write
// the seconds that are left, others when it ends: no such number is a date after 1980.
func (l *lease) left(now time.Time) (d time.Duration, forever bool) {
	const dates = 10 * 365 * 24 * 3600
	switch {
	case l.expiry == 0:
		return 0, true
	case l.expiry < dates:
		return time.Duration(l.expiry) * time.Second, false // #nosec G115 -- 32 bits
	}
	return max(0, time.Unix(int64(l.expiry), 0).Sub(now).Truncate(time.Second)), false // #nosec G115 -- 32 bits
}

// command returns what opens the same by the owner's hand, or why nothing should.
func (l *lease) command(now time.Time) (line, why string) {
	if l.bad {
		return "", "this is no lease"
	}
	left, forever := l.left(now)
	dangerous := "" // what the port is for, where a client gets it by a rule alone
	for _, side := range []struct {
		is   policy.Side
		port uint16
	}{{policy.Internal, l.target.Port()}, {policy.External, l.external}} {
		switch tier, what := policy.TierOf(side.is, l.transport, side.port); {
		case side.port == 0: // of a pinhole
		case tier == policy.Forbidden:
			return "", fmt.Sprintf("%s port %d is %s, which is never opened", side.is, side.port, what)
		case tier == policy.Privileged && dangerous == "":
			dangerous = " # " + what
		}
	}
	switch {
	case !host(l.target.Addr()):
		return "", "this is for an address that no host of a LAN has"
	case left <= 0 && !forever:
		return "", "this has ended"
	case l.remotePort != 0:
		return "", "this is restricted to a remote port, which add cannot do"
	}
	words := []string{"portcullis add", l.transport.String()}
	if l.external != 0 {
		words = append(words, strconv.Itoa(int(l.external)))
	}
	target := l.target.String()
	if l.target.Addr().Is6() {
		target = "'" + target + "'" // zsh takes brackets for a pattern
	}
	words = append(words, target)
	if l.remote.IsValid() {
		words = append(words, "--from "+l.remote.String())
	}
	if !forever {
		words = append(words, "--for "+left.String())
	}
	if text := harmless(l.description); text != "" {
		words = append(words, "--description='"+text+"'")
	}
	return strings.Join(words, " ") + dangerous, ""
}

// host reports whether another machine can have an address.
func host(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !(a.Is6() && a.IsLinkLocalUnicast()) && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// harmless returns what a client has written, for a shell: in quotes it is words and nothing
// else.
func harmless(text string) string {
	text = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(" ._:()+/-", c) {
			return c
		}
		return '_'
	}, text)
	return text[:min(len(text), 60)]
}
