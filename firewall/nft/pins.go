package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// IPv6 pinholes. Nothing is translated, so a pinhole is one element of one set,
// by whom it lets in (portmap.Source):
//
//	anyone     pinholes
//	one host   pinholes_from
//	filtered   pinholes_filtered
//
// The rules (allowPins) say protocol, host and port (abuse case J7), and that the
// packet comes in by the IPv6 WAN and leaves to a LAN: a pinhole is for the
// outside, and never for what is not behind us. Other protocols, ICMPv6 above
// all, are in no set and so are the owner's to judge.

// pinSets are the sets of pinholes: in our table with counters, beside the
// accept chain without.
type pinSets struct{ anyone, host, filtered *nftables.Set }

type pinNames struct{ anyone, host, filtered string }

var ownPinNames = pinNames{anyone: "pinholes", host: "pinholes_from", filtered: "pinholes_filtered"}

func (n pinNames) list() []string { return []string{n.anyone, n.host, n.filtered} }

// Concatenated keys of IPv6.
var (
	pinKey         = []nftables.SetDatatype{nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService}
	pinFromKey     = append([]nftables.SetDatatype{nftables.TypeIP6Addr}, pinKey...)
	pinFilteredKey = append([]nftables.SetDatatype{nftables.TypeIP6Addr, nftables.TypeInetService}, pinKey...)
	// The pinned host's end, then the other.
	connection6 = []nftables.SetDatatype{
		nftables.TypeInetProto, nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr, nftables.TypeInetService,
	}
)

func (s *skeleton) pinSets(names pinNames, size uint32) pinSets {
	return pinSets{
		anyone:   s.leases(names.anyone, size, pinKey, nil),
		host:     s.leases(names.host, size, pinFromKey, nil),
		filtered: s.ranges(names.filtered, size, pinFilteredKey, nil),
	}
}

func (p pinSets) all() []*nftables.Set { return []*nftables.Set{p.anyone, p.host, p.filtered} }

// of returns the set that has a pin.
func (p pinSets) of(e firewall.Entry) *nftables.Set {
	switch {
	case e.Source.Anyone():
		return p.anyone
	case e.Source.OneHost():
		return p.host
	}
	return p.filtered
}

// pinElement returns a pin's element.
func pinElement(e firewall.Entry) nftables.SetElement {
	rest := func(key []byte) []byte { return append(key, keptKey(e)...) }
	if !e.Source.Filtered() {
		return nftables.SetElement{Key: rest(appendHost(e.Source))}
	}
	first, last := ends(e.Source.Prefix)
	return nftables.SetElement{
		Key:    rest(appendPort(first, e.Source.Low)),
		KeyEnd: rest(appendPort(last, e.Source.High)),
	}
}

// pinIn reads an element of one of our sets of pinholes, without its lease.
func pinIn(set string, el element) (firewall.Entry, bool) {
	e := firewall.Entry{Kind: firewall.Pin}
	key, ok := el.key, false
	switch {
	case set == ownPinNames.anyone:
		ok = len(key) == 24 && el.keyEnd == nil
	case set == ownPinNames.host:
		if ok = len(key) == 40 && el.keyEnd == nil; ok {
			e.Source = portmap.Host(netip.AddrFrom16([16]byte(key)))
			key = key[16:]
		}
	case set == ownPinNames.filtered:
		if ok = len(key) == 44 && len(el.keyEnd) == 44; ok {
			e.Source, ok = sourceIn(key, el.keyEnd, 16, 16)
			key = key[20:]
		}
	}
	if !ok {
		return e, false
	}
	e.Transport = portmap.Transport(key[16])
	e.Internal = netip.AddrPortFrom(netip.AddrFrom16([16]byte(key)), binary.BigEndian.Uint16(key[20:]))
	return e, true
}

// toPin matches a packet towards a pinned endpoint, fromPin its answers. The
// remote host is in front, and behind it its port, as far as the set wants them.
func toPin(pins *nftables.Set, remote ...expr.Any) match {
	return pinned(pins, remote, offDaddr6, offDport)
}

func fromPin(pins *nftables.Set, remote ...expr.Any) match {
	return pinned(pins, remote, offSaddr6, offSport)
}

// pinned loads what is before the endpoint, then the endpoint, and looks it up.
// An IPv6 address takes four registers.
func pinned(pins *nftables.Set, remote []expr.Any, offAddr, offPort uint32) match {
	at := uint32(r0)
	if len(remote) > 0 {
		at += 4
	}
	if len(remote) > 1 {
		at++
	}
	m := append(match{}, remote...)
	return append(m, addr6(offAddr, at), meta(expr.MetaKeyL4PROTO, at+4), port(offPort, at+5), in(pins, reg1))
}

// allowPins fills a chain that lets pass the packets of pinholes, both directions;
// it is used in our table and in that of the accept chain. What a host began
// itself has the other direction and is never touched. The sets come in the order
// in which a packet follows them (portmap.Source), which tells who counts it.
func (b *chainBuilder) allowPins(c *nftables.Chain, pins pinSets, wan, lan *nftables.Set, pass match) {
	// In the order in which the nft program writes it: a rule of etc/nftables.d and
	// ours are the same rule.
	v6, back := ipv6(b.table), verdict(expr.VerdictReturn, "")
	b.rule(c, "only what comes from outside", ctDirection(0), notIn(expr.MetaKeyIIFNAME, wan), back)
	b.rule(c, "and its answers", ctDirection(1), notIn(expr.MetaKeyOIFNAME, wan), back)
	for _, row := range []struct {
		why     string
		set     *nftables.Set
		in, out []expr.Any
	}{
		{"to a pinned host, from the one remote host a pinhole is for", pins.host, match{addr6(offSaddr6, r0)}, match{addr6(offDaddr6, r0)}},
		{
			"from a network or a source port a pinhole is for", pins.filtered,
			match{addr6(offSaddr6, r0), port(offSport, r4)}, match{addr6(offDaddr6, r0), port(offDport, r4)},
		},
		{"from anyone", pins.anyone, nil, nil},
	} {
		b.rule(c, row.why, ctDirection(0), oifname(lan), b.tcpOrUDP(), v6, toPin(row.set, row.in...), pass)
		b.rule(c, "its answers", ctDirection(1), iifname(lan), b.tcpOrUDP(), v6, fromPin(row.set, row.out...), pass)
	}
}

// refuseEnded refuses what package flows has ended: the host that was reached through
// a pinhole may not carry the flow on as one of its own.
func (s *skeleton) refuseEnded(b *chainBuilder, fwd *nftables.Chain) {
	refuse := b.plain("refuse_ended")
	b.rule(fwd, "a host does not carry on a flow of an ended pinhole",
		ctDirection(0), ipv6(s.table), b.tcpOrUDP(),
		match{
			meta(expr.MetaKeyL4PROTO, r0), addr6(offSaddr6, r1), port(offSport, r1+4),
			addr6(offDaddr6, r1+5), port(offDport, r1+9), in(s.ended6, reg1),
		},
		jump(refuse))
	b.rule(refuse, "so that it knows at once", l4proto(unix.IPPROTO_TCP), match{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	b.rule(refuse, "the same",
		match{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}})
}
