package journal

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portcullis/portmap"
)

// encodeMapping writes what a renewal does not change of a mapping.
func encodeMapping(m *portmap.Mapping) string {
	c := coder{out: make([]byte, 0, usualLine)}
	c.mapping(m)
	return string(c.out)
}

// isEncoded reports whether encodeMapping writes this.
func isEncoded(m *portmap.Mapping, text string) bool {
	c := coder{out: make([]byte, 0, len(text))}
	c.mapping(m)
	return string(c.out) == text
}

// decodeMapping reads what encodeMapping has written.
func decodeMapping(id uint64, text string) portmap.Mapping {
	m := portmap.Mapping{ID: id}
	c := coder{reading: true, in: text}
	c.mapping(&m)
	return m
}

func (c *coder) mapping(m *portmap.Mapping) {
	field(c, "tr", &m.Transport, portmap.Transport.String, parseTransport)
	field(c, "in", &m.Internal, netip.AddrPort.String, netip.ParseAddrPort)
	if c.has("pinhole") {
		m.Kind, m.ExternalPort = portmap.Pinhole6, m.Internal.Port()
	}
	if m.Kind == portmap.Pinhole6 {
		n := uint64(m.Number)
		c.number("pinhole", &n)
		m.Number = uint16(n)
	} else {
		field(c, "out", &m.ExternalPort, portText, parsePort)
	}
	c.quoted("wan", &m.WAN)
	if from := c.word("from", remotesText(m.Remotes)); c.reading && from != "" {
		m.Remotes = parseRemotes(from)
	}
	c.flag("disabled", &m.Disabled)
	c.flag("endless", &m.Endless)
	suspended := !m.Suspended.IsZero()
	if c.flag("suspended", &suspended); c.reading && suspended {
		m.Suspended = unknownTime
	}
	field(c, "client", &m.Client.Addr, netip.Addr.String, netip.ParseAddr)
	field(c, "mac", &m.Client.MAC, portmap.MAC.String, portmap.ParseMAC)
	field(c, "via", &m.Client.Via, portmap.Via.String, parseVia)
	c.quoted("if", &m.Client.Interface)
	c.quoted("name", &m.Client.Name)
	if claims := c.word("claims", claimsText(m)); c.reading && claims != "" {
		parseClaims(claims, m)
	}
	field(c, "nonce", &m.Nonce, nonceText, parseNonce)
	c.quoted("rule", &m.Rule)
	c.quoted("desc", &m.Description)
}

// errForm is for text that nobody writes; see coder.
var errForm = errors.New("malformed")

func parseTransport(s string) (portmap.Transport, error) {
	for _, t := range []portmap.Transport{portmap.TCP, portmap.UDP} {
		if s == t.String() {
			return t, nil
		}
	}
	return 0, errForm
}

func parseVia(s string) (portmap.Via, error) {
	for v := range allVias.All() {
		if s == v.String() {
			return v, nil
		}
	}
	return 0, errForm
}

const allVias = portmap.Vias(1<<portmap.ViaUPnP | 1<<portmap.ViaNATPMP | 1<<portmap.ViaPCP | 1<<portmap.ViaOwner)

// portText writes an external port. There was room for an address before the colon, which
// no version has written.
func portText(port uint16) string { return ":" + strconv.Itoa(int(port)) }

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, ":"), 10, 16)
	return uint16(n), err
}

func remotesText(remotes []portmap.Remote) string {
	var words []string
	for _, r := range remotes {
		word := r.Prefix.String()
		if r.Port != 0 {
			word += "@" + strconv.Itoa(int(r.Port))
		}
		words = append(words, word)
	}
	return strings.Join(words, ",")
}

func parseRemotes(list string) (remotes []portmap.Remote) {
	for word := range strings.SplitSeq(list, ",") {
		text, number, _ := strings.Cut(word, "@")
		prefix, _ := netip.ParsePrefix(text)
		port, _ := strconv.ParseUint(number, 10, 16)
		remotes = append(remotes, portmap.Remote{Prefix: prefix, Port: uint16(port)})
	}
	return remotes
}

// claimsText writes the protocols, and the lease of each that ends before the mapping:
// in full hours, at least one. Nothing else of it is kept, so that its renewals need no
// line; after a restart it begins anew.
func claimsText(m *portmap.Mapping) string {
	var words []string
	for v := range m.Claims.All() {
		word := v.String()
		if l := m.Leases.Of(v); !l.Ends.IsZero() {
			word += ":" + strconv.Itoa(int(max(1, (l.Granted+time.Hour-1)/time.Hour)))
		}
		words = append(words, word)
	}
	return strings.Join(words, ",")
}

func parseClaims(list string, m *portmap.Mapping) {
	for word := range strings.SplitSeq(list, ",") {
		name, hours, shorter := strings.Cut(word, ":")
		v, _ := parseVia(name)
		m.Claims = m.Claims.With(v)
		if shorter {
			n, _ := strconv.ParseUint(hours, 10, 20) // the longest lease has 1,193,047
			m.Leases.Set(v, portmap.Lease{Granted: time.Duration(n) * time.Hour, Ends: unknownTime})
		}
	}
}

func nonceText(n portmap.Nonce) string { return hex.EncodeToString(n[:]) }

func parseNonce(s string) (n portmap.Nonce, err error) {
	b, err := hex.DecodeString(s)
	copy(n[:], b)
	return n, err
}

// unknownTime stands for the times that are not kept, until settleTimes sets them.
var unknownTime = time.Unix(0, 0)

// settleTimes sets the times that are not kept.
func settleTimes(m *portmap.Mapping, now time.Time) {
	if !m.Suspended.IsZero() {
		m.Suspended = now
	}
	for v, l := range m.Leases.All() {
		if l.Ends = now.Add(l.Granted); !m.Expires.IsZero() && !l.Ends.Before(m.Expires) {
			l = portmap.Lease{} // it ends with the mapping
		}
		m.Leases.Set(v, l)
	}
}

// check holds a mapping to what portmap promises of one. Whether it may be is
// the policy's affair, which is asked about each again.
func check(m *portmap.Mapping) error {
	if m.ID == 0 || m.ID > portmap.MaxID {
		return errors.New("its ID is none")
	}
	return m.Check()
}
