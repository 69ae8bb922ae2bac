package portmap

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of the names in a mapping, in bytes. They are wider than what the kernel, the
// configuration and the lease files of DHCP servers give.
const (
	maxInterface = 15
	maxName      = 255
	maxRule      = 256
)

// Check reports what of a mapping could not be enforced or kept, as an *Error where a
// request can be the cause. Table.Plan asks it of each mapping that it plans, so that a
// firewall never has to refuse one; the journal of each that it writes or reads.
func (m *Mapping) Check() error {
	if err := m.Enforceable(); err != nil {
		return err
	}
	return m.checkKept()
}

// Enforceable is Check without what a firewall need not know: whose the mapping is, and
// what is told of it. The doctor tries mappings that are nobody's.
func (m *Mapping) Enforceable() error {
	switch {
	case m.Kind != NAT4 && m.Kind != Pinhole6:
		return fmt.Errorf("neither a translated IPv4 port nor an IPv6 pinhole: %s", m)
	case !m.Transport.Valid():
		return &Error{Reason: BadTransport, Detail: fmt.Sprintf("cannot map %s", m.Transport)}
	case m.Internal.Port() == 0 || m.Kind == NAT4 && m.ExternalPort == 0:
		return &Error{Reason: BadPort, Detail: fmt.Sprintf("port 0 cannot be mapped: %s", m)}
	case m.Kind == NAT4 && m.Number != 0:
		return fmt.Errorf("only a pinhole has a number: %s", m)
	case m.Kind == Pinhole6 && m.ExternalPort != m.Internal.Port():
		return fmt.Errorf("a pinhole does not translate: %s", m)
	}
	if host := m.Internal.Addr(); !m.Kind.canReach(host) {
		return &Error{Reason: NotAHost, Detail: fmt.Sprintf("no mapping of this kind can lead to %.64q", host)}
	}
	return m.Kind.checkRemotes(m.Remotes)
}

// checkKept refuses what no request and no configuration can have given.
func (m *Mapping) checkKept() error {
	for v := range m.Leases.All() {
		if !m.Claims.Has(v) {
			return fmt.Errorf("a lease of a protocol that has no claim: %s", v)
		}
	}
	c := &m.Client
	switch {
	case !isHost(c.Addr):
		return fmt.Errorf("not the address of a client: %q", c.Addr)
	case c.Via == 0 || c.Via >= viaCount || m.Claims&^allVias != 0:
		return fmt.Errorf("unknown protocol: %s, %08b", c.Via, m.Claims)
	case m.Endless && !m.Claims.Has(endlessVia):
		return fmt.Errorf("only %s has leases without an end", endlessVia)
	case len(m.Description) > MaxDescription:
		return fmt.Errorf("the description has %d bytes", len(m.Description))
	case !isName(c.Interface, maxInterface) || !isName(m.WAN, maxInterface) || !isName(c.Name, maxName) || !isName(m.Rule, maxRule):
		return fmt.Errorf("not the name of an interface, a client or a rule: %q, %q, %q, %q", c.Interface, m.WAN, c.Name, m.Rule)
	}
	return nil
}

// canReach reports whether a mapping may lead to an address. One with a zone cannot,
// nor one that is never routed (abuse cases A8, B4, J2).
func (k Kind) canReach(a netip.Addr) bool {
	if k == Pinhole6 {
		return isIPv6(a) && a.Zone() == "" && a.IsGlobalUnicast()
	}
	return a.Is4() && isHost(a)
}

// checkRemotes refuses what no Source can say: a restriction that is accepted and not
// enforced would be a hole (abuse case B10).
func (k Kind) checkRemotes(remotes []Remote) error {
	if err := tooMany(remotes); err != nil {
		return err
	}
	family, right := "IPv4", netip.Addr.Is4
	if k == Pinhole6 {
		family, right = "IPv6", isIPv6
	}
	for _, r := range remotes {
		if !r.Prefix.IsValid() || !right(r.Prefix.Addr()) || r.Prefix != r.Prefix.Masked() {
			return &Error{Reason: BadRemote, Detail: fmt.Sprintf(
				"this mapping can be limited to %s networks and source ports, not to %q", family, r.Prefix)}
		}
	}
	return nil
}

// isHost reports whether a can be one machine's address, without a zone.
func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a.Zone() == "" && !a.Is4In6() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isName reports whether s is text for a line of output, of at most so many bytes.
func isName(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func tooMany(remotes []Remote) error {
	if len(remotes) <= MaxRemotes {
		return nil
	}
	return &Error{Reason: TooManyRemotes, Detail: fmt.Sprintf("%d restrictions; a mapping may have %d", len(remotes), MaxRemotes)}
}

// isIPv6 is not true of an IPv4 address that is written as one.
func isIPv6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }
