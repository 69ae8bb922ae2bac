package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"portcullis/internal/special"
	"portcullis/portmap"
)

// Walls reports whether a request breaks what no rule can allow; the decision is the
// refusal then, and means nothing otherwise. It needs no configuration, so that the
// process that touches the kernel can ask it again without trusting the process that
// read the wire.
//
// A NAT4 mapping and an IPv6 pinhole meet the same walls; a pinhole has no
// external port of its own, and Request.ExternalPort is not looked at for it.
func Walls(r portmap.Request, v *portmap.View) (portmap.Decision, bool) {
	if !r.Transport.Valid() { // abuse case B7
		return wall(portmap.BadTransport, "only TCP and UDP ports can be mapped, not %s", r.Transport), true
	}
	if d, hit := linkWall(&r, v); hit {
		return d, true
	}
	if d, hit := targetWall(&r, v); hit {
		return d, true
	}
	if d, hit := internalWall(&r); hit {
		return d, true
	}
	if d, hit := remoteWall(&r); hit {
		return d, true
	}
	return externalWall(&r)
}

// wall makes the refusal of a wall.
func wall(reason portmap.Reason, format string, args ...any) portmap.Decision {
	return portmap.Decision{Action: portmap.Deny, Wall: true, Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// linkWall: the client must be on-link on a served LAN (abuse cases A5, A6); the owner,
// who has opened a host's port by hand, is nowhere, and his host must be.
func linkWall(r *portmap.Request, v *portmap.View) (portmap.Decision, bool) {
	c := r.Client
	if v == nil {
		return wall(portmap.OffLink, "the gateway does not know its own network yet"), true
	}
	if c.Owner() {
		return ownerWall(c.Addr, v)
	}
	lan, served := v.LAN[c.Interface]
	if !served {
		return wall(portmap.OffLink, "requests from interface %q are not served; lan.interfaces names those that are", c.Interface), true
	}
	if c.Addr.Is4In6() || !lan.OnLink(c.Addr) { // A8: such a peer was not unmapped at the socket
		return wall(portmap.OffLink, "%s does not belong to the network of %s; a routed network can be added to lan.extra_prefixes",
			c.Addr, c.Interface), true
	}
	return portmap.Decision{}, false
}

// ownerWall: what the owner opens leads to a host of a served LAN. There is none else that
// the firewall lets packets through to.
func ownerWall(host netip.Addr, v *portmap.View) (portmap.Decision, bool) {
	for _, lan := range v.LAN {
		if lan.OnLink(host) {
			return portmap.Decision{}, false
		}
	}
	return wall(portmap.OffLink, "%s does not belong to the network of a LAN; a routed network can be added to lan.extra_prefixes", host), true
}

// targetWall: a mapping points at the host that asked for it, and at nothing
// else. What the target is comes before whose it is: a source address that is
// the gateway's own, or a broadcast, is no client either.
func targetWall(r *portmap.Request, v *portmap.View) (portmap.Decision, bool) {
	t := r.Internal.Addr()
	if t.Is4In6() { // A8, B5
		return wall(portmap.NotAHost, "an IPv4 address cannot be written as an IPv6 address"), true
	}
	if !ofKind(r.Kind, t) {
		return wall(portmap.NotAHost, "%s is of the wrong address family for this kind of mapping", t), true
	}
	if reason, what := notAHost(t, v); reason != portmap.NoReason {
		return wall(reason, "%s is %s, not a host on the LAN", t, what), true
	}
	if t != r.Client.Addr { // B1, B2, J1
		return wall(portmap.NotRequester, "%s asked to open a port of %s; a host can only open its own ports", r.Client.Addr, t), true
	}
	if t.Is6() && !plain6(t) { // B12
		return wall(portmap.NotAHost, "%s is neither a global nor a unique local IPv6 address of a host", t), true
	}
	return portmap.Decision{}, false
}

// ofKind reports whether t is an address of the family the kind of mapping needs.
func ofKind(k portmap.Kind, t netip.Addr) bool {
	switch k {
	case portmap.NAT4:
		return t.Is4()
	case portmap.Pinhole6:
		return t.Is6() && t.Zone() == ""
	}
	return false
}

// notAHost recognises the addresses that are no host on a LAN (B4) or are the
// gateway itself (B3), and says in words which.
func notAHost(t netip.Addr, v *portmap.View) (portmap.Reason, string) {
	switch {
	case t.IsUnspecified():
		return portmap.NotAHost, "the unspecified address"
	case t.IsLoopback():
		return portmap.GatewayTarget, "a loopback address"
	case t.IsMulticast():
		return portmap.NotAHost, "a multicast address"
	case t.IsLinkLocalUnicast():
		return portmap.NotAHost, "a link-local address"
	case t.Is4() && t.As4()[0] == 0, t.Is4() && t.As4()[0] >= 240:
		return portmap.NotAHost, "a reserved or broadcast address"
	case slices.ContainsFunc(v.WANs, func(w portmap.WAN) bool { return t == w.External }):
		return portmap.NotAHost, "the gateway's address on the Internet"
	}
	for _, a := range v.WANAddrs {
		if t == a {
			return portmap.NotAHost, "the gateway's address on the Internet"
		}
	}
	if _, own := v.Local[t]; own {
		return portmap.GatewayTarget, "the gateway's own address"
	}
	return inLANs(t, v)
}

// inLANs is the part of notAHost that depends on the LANs. All of them count,
// not the client's alone: where prefixes overlap, the kernel may deliver a
// broadcast to another LAN than the one that was asked from.
func inLANs(t netip.Addr, v *portmap.View) (portmap.Reason, string) {
	own, edge, inside := false, false, false
	for _, lan := range v.LAN {
		for _, a := range lan.Addrs {
			own = own || t == a
		}
		for _, p := range lan.Prefixes {
			inside = inside || p.Contains(t)
			edge = edge || special.Edge(p, t)
		}
	}
	switch {
	case own:
		return portmap.GatewayTarget, "the gateway's own address"
	case edge:
		return portmap.NotAHost, "the network or broadcast address of a LAN"
	case !inside && t.Is4() && t.As4()[0] == 100 && t.As4()[1]&0xc0 == 64: // 100.64.0.0/10, RFC 6598
		return portmap.NotAHost, "a provider's shared address"
	}
	return portmap.NoReason, ""
}

// plain6 reports whether t is in 2000::/3 or fc00::/7 and has no IPv4 address
// inside, as 6to4 (2002::/16) and Teredo (2001::/32) have (B12).
func plain6(t netip.Addr) bool {
	b := t.As16()
	switch {
	case b[0]&0xfe == 0xfc:
		return true
	case b[0]&0xe0 != 0x20, b[0] == 0x20 && b[1] == 0x02:
		return false
	}
	return [4]byte(b[:4]) != [4]byte{0x20, 0x01, 0, 0}
}

// internalWall: port 0 and Tier 0. The internal port comes before the external one,
// since it is what the service is.
func internalWall(r *portmap.Request) (portmap.Decision, bool) {
	port := r.Internal.Port()
	if port == 0 { // B6, I12: a whole host at once
		return wall(portmap.BadPort, "a mapping needs an internal port other than 0"), true
	}
	if tier, why := TierOf(Internal, r.Transport, port); tier == Forbidden {
		return wall(portmap.ForbiddenPort, "internal %s port %d is %s, which is never opened", r.Transport, port, why), true
	}
	return portmap.Decision{}, false
}

// externalWall: Tier 0 once more. It is the last wall, so that its refusal says
// that nothing but the external port is in the way.
func externalWall(r *portmap.Request) (portmap.Decision, bool) {
	if r.Kind != portmap.NAT4 {
		return portmap.Decision{}, false
	}
	port := r.ExternalPort
	tier, why := TierOf(External, r.Transport, port)
	if tier != Forbidden {
		return portmap.Decision{}, false
	}
	d := wall(portmap.ForbiddenPort, "external %s port %d is %s, which is never opened", r.Transport, port, why)
	d.OverExternalPort = true
	return d, true
}

// remoteWall: a restriction is enforced or refused, never ignored (B10). The
// whole address space is a restriction to a source port alone.
func remoteWall(r *portmap.Request) (portmap.Decision, bool) {
	for _, remote := range r.Remotes {
		p := remote.Prefix
		a := p.Addr()
		what := ""
		switch {
		case !p.IsValid(), p != p.Masked():
			what = "it is neither a network nor an address"
		case a.Is4In6(), a.Is4() != (r.Kind == portmap.NAT4):
			what = "it is of the wrong address family"
		case p.Bits() == 0:
		case a.IsMulticast(), a.IsLoopback(), a.IsUnspecified(), a.Is6() && a.IsLinkLocalUnicast(),
			a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240):
			what = "no host on the Internet sends from there"
		}
		if what != "" {
			return wall(portmap.BadRemote, "a mapping cannot be restricted to %s: %s", p, what), true
		}
	}
	return portmap.Decision{}, false
}
