package journal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"portcullis/portmap"
)

// Bounds of what is kept, in bytes. Those of the names are wider than what the
// configuration and the lease files of DHCP servers give.
const (
	maxInterface = 15
	maxName      = 255
	maxRule      = 256
)

var vias = []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP, portmap.ViaOwner}

// appendFixed writes what a renewal does not change. What is zero is left out.
func appendFixed(b []byte, m *portmap.Mapping) []byte {
	b = append(append(b, "tr="...), m.Transport.String()...)
	b = m.Internal.AppendTo(append(b, " in="...))
	if m.Kind == portmap.Pinhole6 {
		b = strconv.AppendUint(append(b, " pinhole="...), uint64(m.Number), 10)
	} else {
		b = append(b, " out="...)
		if a := m.External.Addr(); a.IsValid() {
			b = a.AppendTo(b)
		}
		b = strconv.AppendUint(append(b, ':'), uint64(m.External.Port()), 10)
	}
	b = appendQuoted(b, " wan=", m.WAN)
	for i, r := range m.Remotes {
		b = append(b, []string{" from=", ","}[min(i, 1)]...)
		b = r.Prefix.AppendTo(b)
		if r.Port != 0 {
			b = strconv.AppendUint(append(b, '@'), uint64(r.Port), 10)
		}
	}
	if m.Disabled {
		b = append(b, " disabled=yes"...)
	}
	if m.Endless {
		b = append(b, " endless=yes"...)
	}
	if !m.Suspended.IsZero() {
		b = append(b, " suspended=yes"...)
	}
	b = appendClient(b, &m.Client)
	claims := " claims="
	for _, v := range vias {
		if m.Claims.Has(v) {
			b = append(append(b, claims...), v.String()...)
			if l := m.Leases[v]; !l.Ends.IsZero() {
				b = strconv.AppendInt(append(b, ':'), int64(hours(l.Granted)), 10)
			}
			claims = ","
		}
	}
	if m.Nonce != (portmap.Nonce{}) {
		b = hex.AppendEncode(append(b, " nonce="...), m.Nonce[:])
	}
	b = appendQuoted(b, " rule=", m.Rule)
	return appendQuoted(b, " desc=", m.Description)
}

// hours returns the lease of one protocol in full hours, at least one. Of a lease that
// ends before its mapping nothing else is kept, so that its renewals need no line;
// after a restart it begins anew.
func hours(d time.Duration) int { return int(max(1, (d+time.Hour-1)/time.Hour)) }

// maxHours is more than the longest lease there is.
const maxHours = 1<<32/3600 + 1

func appendClient(b []byte, c *portmap.Client) []byte {
	b = c.Addr.AppendTo(append(b, " client="...))
	if c.MAC != (portmap.MAC{}) {
		b = append(append(b, " mac="...), c.MAC.String()...)
	}
	b = append(append(b, " via="...), c.Via.String()...)
	b = appendQuoted(b, " if=", c.Interface)
	return appendQuoted(b, " name=", c.Name)
}

// appendQuoted writes text from outside so that it cannot begin a new line or a
// new field (abuse case C12).
func appendQuoted(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return strconv.AppendQuote(append(b, key...), s)
}

// unknownTime stands for the times that are not kept, until adopt sets them.
var unknownTime = time.Unix(0, 0)

// settleTimes sets the times that are not kept.
func settleTimes(m *portmap.Mapping, now time.Time) {
	if !m.Suspended.IsZero() {
		m.Suspended = now
	}
	for v := range m.Leases {
		l := &m.Leases[v]
		if l.Ends.IsZero() {
			continue
		}
		if l.Ends = now.Add(l.Granted); !m.Expires.IsZero() && !l.Ends.Before(m.Expires) {
			*l = portmap.Lease{} // it ends with the mapping
		}
	}
}

// mapping reads what appendFixed writes. It is not checked yet.
func (s *scanner) mapping() portmap.Mapping {
	var m portmap.Mapping
	m.Transport = map[string]portmap.Transport{"tcp": portmap.TCP, "udp": portmap.UDP}[s.field("tr")]
	m.Internal = s.addrPort(s.field("in"))
	if s.has("pinhole") {
		m.Kind, m.External = portmap.Pinhole6, m.Internal
		m.Number = uint16(s.bounded(s.field("pinhole"), 1<<16-1))
	} else {
		addr, port, _ := strings.Cut(s.field("out"), ":")
		if addr != "" {
			m.External = netip.AddrPortFrom(s.addr(addr), 0)
		}
		m.External = netip.AddrPortFrom(m.External.Addr(), uint16(s.bounded(port, 1<<16-1)))
	}
	m.WAN = s.quoted("wan")
	if s.has("from") {
		m.Remotes = s.remotes(s.field("from"))
	}
	if s.has("disabled") {
		m.Disabled = s.field("disabled") == "yes"
	}
	if s.has("endless") {
		m.Endless = s.field("endless") == "yes"
	}
	if s.has("suspended") && s.field("suspended") == "yes" {
		m.Suspended = unknownTime
	}
	m.Client.Addr = s.addr(s.field("client"))
	if s.has("mac") {
		mac, err := portmap.ParseMAC(s.field("mac"))
		m.Client.MAC = mac
		s.bad = s.bad || err != nil
	}
	m.Client.Via = s.via(s.field("via"))
	m.Client.Interface, m.Client.Name = s.quoted("if"), s.quoted("name")
	if s.has("claims") {
		for word := range strings.SplitSeq(s.field("claims"), ",") {
			word, term, shorter := strings.Cut(word, ":")
			v := s.via(word)
			m.Claims = m.Claims.With(v)
			if shorter {
				m.Leases[v] = portmap.Lease{Granted: time.Duration(s.bounded(term, maxHours)) * time.Hour, Ends: unknownTime}
			}
		}
	}
	if s.has("nonce") {
		s.nonce(&m.Nonce)
	}
	m.Rule, m.Description = s.quoted("rule"), s.quoted("desc")
	return m
}

func (s *scanner) nonce(n *portmap.Nonce) {
	word := s.field("nonce")
	if len(word) != 2*len(n) {
		s.bad = true
		return
	}
	_, err := hex.Decode(n[:], []byte(word))
	s.bad = s.bad || err != nil
}

func (s *scanner) remotes(list string) []portmap.Remote {
	if strings.Count(list, ",") >= portmap.MaxRemotes {
		s.bad = true
		return nil
	}
	var remotes []portmap.Remote
	for word := range strings.SplitSeq(list, ",") {
		prefix, port, limited := strings.Cut(word, "@")
		p, err := netip.ParsePrefix(prefix)
		s.bad = s.bad || err != nil
		r := portmap.Remote{Prefix: p}
		if limited {
			r.Port = uint16(s.bounded(port, 1<<16-1))
		}
		remotes = append(remotes, r)
	}
	return remotes
}

func (s *scanner) via(word string) portmap.Via {
	for _, v := range vias {
		if v.String() == word {
			return v
		}
	}
	s.bad = true
	return 0
}

// errNonsense means that a mapping is none that portmap can have made.
var errNonsense = errors.New("not a mapping")

// check holds a mapping to what portmap promises of one. Whether it may be is
// the policy's affair, which is asked about each again.
func check(m *portmap.Mapping) error {
	say := func(what string) error { return fmt.Errorf("%w: %s", errNonsense, what) }
	four := m.Kind == portmap.NAT4
	switch {
	case m.ID == 0 || m.ID > portmap.MaxID:
		return say("ID")
	case m.Kind != portmap.NAT4 && m.Kind != portmap.Pinhole6:
		return say("kind")
	case !m.Transport.Valid():
		return say("transport")
	case !isHost(m.Internal.Addr()) || m.Internal.Addr().Is4() != four || m.Internal.Port() == 0:
		return say("internal address or port")
	case four && (m.External.Port() == 0 || m.Number != 0 || m.External.Addr().IsValid() && !m.External.Addr().Is4()):
		return say("external address or port")
	case !four && m.External != m.Internal:
		return say("external address or port of a pinhole")
	case len(m.Remotes) > portmap.MaxRemotes || slices.ContainsFunc(m.Remotes, func(r portmap.Remote) bool { return !isRemote(r, four) }):
		return say("remotes")
	case !isHost(m.Client.Addr) || len(m.Client.Interface) > maxInterface || len(m.WAN) > maxInterface || len(m.Client.Name) > maxName:
		return say("client")
	case !slices.Contains(vias, m.Client.Via) || m.Claims&^allClaims != 0:
		return say("protocol")
	case m.Endless && !m.Claims.Has(portmap.ViaUPnP) || slices.ContainsFunc(vias, func(v portmap.Via) bool { return !m.Claims.Has(v) && m.Leases[v] != portmap.Lease{} }):
		return say("lease of a protocol")
	case len(m.Description) > portmap.MaxDescription || len(m.Rule) > maxRule:
		return say("description or rule")
	case !isText(m.Client.Interface) || !isText(m.WAN) || !isText(m.Client.Name) || !isText(m.Rule):
		return say("name of an interface, client or rule")
	}
	return nil
}

const allClaims = portmap.Vias(1<<portmap.ViaUPnP | 1<<portmap.ViaNATPMP | 1<<portmap.ViaPCP | 1<<portmap.ViaOwner)

// isHost reports whether a can be one machine's address, as portmap writes it.
func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a.Zone() == "" && !a.Is4In6() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func isRemote(r portmap.Remote, four bool) bool {
	return r.Prefix.IsValid() && r.Prefix.Addr().Is4() == four && !r.Prefix.Addr().Is4In6() && r.Prefix == r.Prefix.Masked()
}

// isText: names come from the owner or the kernel and have nothing to hide.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) })
}
