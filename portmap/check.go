package portmap

import (
	"fmt"
	"net/netip"
)

// Check reports what of a mapping could not be enforced, as an *Error. Table.Plan asks
// it of each mapping that it plans, so that a firewall never has to refuse one.
func (m *Mapping) Check() error {
	switch {
	case m.Kind != NAT4 && m.Kind != Pinhole6:
		return fmt.Errorf("neither a translated IPv4 port nor an IPv6 pinhole: %s", m)
	case !m.Transport.Valid():
		return &Error{Reason: BadTransport, Detail: fmt.Sprintf("cannot map %s", m.Transport)}
	case m.Internal.Port() == 0 || m.Kind == NAT4 && m.External.Port() == 0:
		return &Error{Reason: BadPort, Detail: fmt.Sprintf("port 0 cannot be mapped: %s", m)}
	}
	if host := m.Internal.Addr(); !m.Kind.canReach(host) {
		return &Error{Reason: NotAHost, Detail: fmt.Sprintf("no mapping of this kind can lead to %.64q", host)}
	}
	return m.Kind.checkRemotes(m.Remotes)
}

// canReach reports whether a mapping may lead to an address. One with a zone cannot,
// nor one that is never routed (abuse cases A8, B4, J2).
func (k Kind) canReach(a netip.Addr) bool {
	if k == Pinhole6 {
		return isIPv6(a) && a.Zone() == "" && a.IsGlobalUnicast()
	}
	return a.Is4() && !a.IsUnspecified()
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

func tooMany(remotes []Remote) error {
	if len(remotes) <= MaxRemotes {
		return nil
	}
	return &Error{Reason: TooManyRemotes, Detail: fmt.Sprintf("%d restrictions; a mapping may have %d", len(remotes), MaxRemotes)}
}

// isIPv6 is not true of an IPv4 address that is written as one.
func isIPv6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }
