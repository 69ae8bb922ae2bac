package ssdp

import (
	"net/netip"
	"slices"
	"time"
)

// Where searches and notifications go (UDA 2.0 sections 1.1.1 and A.3).
var (
	Group     = netip.MustParseAddrPort("239.255.255.250:1900")
	GroupLink = netip.MustParseAddrPort("[ff02::c]:1900") // the link
	GroupSite = netip.MustParseAddrPort("[ff05::c]:1900") // the site
)

// scope is a group with the address of ours that fits it: one for IPv4, two for
// IPv6. What is said to a group, and to who searched from its scope, leaves from
// that address and names it in LOCATION (UDA 2.0 section A.3). An address that
// changes in one scope is nothing to the other.
type scope struct {
	group netip.AddrPort
	class func(netip.Addr) int // how well an address fits: 0 not at all, else the less the better

	local    netip.Addr            // the zero Addr: none at the moment
	facts    facts                 // hold while local is valid
	others   map[netip.Addr]*facts // the same with the LOCATION at another address
	appeared bool                  // facts.bootID was used

	copies   int       // of the alive set still to send in this burst
	announce time.Time // when the next one is due
}

// groups returns the groups of an IP family.
func groups(six bool) []netip.Addr {
	if !six {
		return []netip.Addr{Group.Addr()}
	}
	return []netip.Addr{GroupLink.Addr(), GroupSite.Addr()}
}

// scopes returns those of an IP family.
func scopes(six bool, f facts) []*scope {
	with := func(group netip.AddrPort, class func(netip.Addr) int) *scope {
		f.group = group
		return &scope{group: group, class: class, facts: f}
	}
	if !six {
		return []*scope{with(Group, ofIPv4)}
	}
	return []*scope{with(GroupLink, ofLink), with(GroupSite, ofSite)}
}

func ofIPv4(a netip.Addr) int {
	if a.Is4() {
		return 1
	}
	return 0
}

func ofLink(a netip.Addr) int {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return 1
	}
	return 0
}

// ofSite prefers a global address, though a unique local one stays when the
// provider renumbers: who connects to a unique local address does so from its own
// (RFC 6724 rule 6), and may then not open a pinhole for its global one, which is
// the one that counts. Pinholes end with the prefix anyway.
func ofSite(a netip.Addr) int {
	switch {
	case !a.Is6() || a.Is4In6() || !a.IsGlobalUnicast():
		return 0
	case a.IsPrivate():
		return 2
	}
	return 1
}

// choose returns the address that fits best, the present one before its equals.
func (s *scope) choose(locals []netip.Addr) netip.Addr {
	var best netip.Addr
	for _, a := range locals {
		c := s.class(a)
		if c == 0 {
			continue
		}
		if !best.IsValid() || c < s.class(best) || a == s.local && c == s.class(best) {
			best = a
		}
	}
	return best
}

// scopeOf returns the scope of who asks: its answers name an address that it can
// reach (UDA 2.0 section A.3). Nil while no scope has an address.
func (l *loop) scopeOf(source netip.Addr) *scope {
	wide := source.Is6() && !source.IsLinkLocalUnicast()
	var found *scope
	for _, s := range l.scopes { // from the narrow to the wide
		if s.local.IsValid() && (found == nil || wide) {
			found = s
		}
	}
	return found
}

// near returns the address from which a multicast search is answered: one in a network
// of the client's, the scope's own before others. Some clients heed nobody else, and
// one with another router may not reach the scope's.
func (l *loop) near(s *scope, source netip.Addr) netip.Addr {
	if l.cfg.IPv6 {
		return s.local // scopeOf has chosen
	}
	var networks []netip.Prefix
	for _, p := range l.addresses.Prefixes {
		if p.Contains(source) {
			networks = append(networks, p)
		}
	}
	shared := func(a netip.Addr) bool {
		return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if i := slices.IndexFunc(l.addresses.Locals, shared); i >= 0 && !shared(s.local) {
		return l.addresses.Locals[i]
	}
	return s.local
}

// factsAt returns what is announced at an address: over IPv4 the LOCATION is there.
func (l *loop) factsAt(s *scope, at netip.Addr) *facts {
	if at == s.local || l.cfg.IPv6 {
		return &s.facts
	}
	if f := s.others[at]; f != nil {
		return f
	}
	shown, err := describe(l.cfg.Describe, at)
	if err != nil {
		return &s.facts // as good as before: it was asked at another address of this gateway
	}
	f := s.facts
	f.shown = shown
	if s.others == nil {
		s.others = make(map[netip.Addr]*facts)
	}
	s.others[at] = &f
	return &f
}
