package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// errInconsistent is given when our chains contradict one another.
var errInconsistent = errors.New("our rules do not agree")

// entries reads what our chains of a family come to. A hole needs its three rules
// with one date.
func (s *saved) entries(f family) ([]firewall.Entry, error) {
	if f == six {
		return s.chainEntries("filter", chainPin)
	}
	holes, err := s.chainEntries("nat", chainMap)
	if err != nil {
		return nil, err
	}
	for _, with := range []place{{"filter", chainOpen}, {"nat", chainHair}} {
		others, err := s.chainEntries(with.table, with.chain)
		if err != nil {
			return nil, err
		}
		there := make(map[string]bool, len(others))
		for _, e := range others {
			there[e.String()+e.Expires.String()] = true
		}
		for _, e := range holes {
			if !there[e.String()+e.Expires.String()] {
				return nil, fmt.Errorf("%w: %s is not in %s", errInconsistent, e, with.chain)
			}
		}
		if len(others) != len(holes) {
			return nil, fmt.Errorf("%w: %s has %d rules for %d holes", errInconsistent, with.chain, len(others), len(holes))
		}
	}
	kept, err := s.chainEntries("nat", chainKeep)
	return append(holes, kept...), err
}

func (s *saved) chainEntries(table, chain string) ([]firewall.Entry, error) {
	var all []firewall.Entry
	for _, l := range s.chains[place{table, chain}] {
		e, err := l.entry(chain)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errInconsistent, chain, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// entry reads one of our rules back.
func (l line) entry(chain string) (e firewall.Entry, err error) {
	r := lineReader{line: l}
	switch l.after("-p") {
	case "tcp", "6":
		e.Transport = portmap.TCP
	case "udp", "17":
		e.Transport = portmap.UDP
	default:
		return e, fmt.Errorf("no transport: %.200q", l.text())
	}
	switch chain {
	case chainMap:
		e.Kind = firewall.Hole
		e.External = r.port("--dport")
		e.Source = r.source("-s", "--sport", "0.0.0.0/0")
		if e.Internal, err = netip.ParseAddrPort(l.after("--to-destination")); err != nil {
			r.err = err
		}
	case chainOpen, chainHair:
		e.Kind = firewall.Hole
		e.External = r.port("--ctorigdstport")
		e.Source = r.source("--ctorigsrc", "--ctorigsrcport", "0.0.0.0/0")
		e.Internal = netip.AddrPortFrom(r.addr("--ctreplsrc"), r.port("--ctreplsrcport"))
	case chainKeep:
		e.Kind = firewall.Kept
		e.External = r.port("--to-ports")
		e.Internal = netip.AddrPortFrom(r.addr("-s"), r.port("--sport"))
	case chainPin:
		e.Kind = firewall.Pin
		e.Source = r.source("--ctorigsrc", "--ctorigsrcport", "::/0")
		e.Internal = netip.AddrPortFrom(r.addr("--ctorigdst"), r.port("--ctorigdstport"))
	}
	if date := l.after("--datestop"); date != "" {
		at, err := time.Parse("2006-01-02T15:04:05", date)
		if err != nil {
			r.err = err
		}
		e.Expires = at.Add(-grace)
	}
	return e, r.err
}

// lineReader keeps the first error.
type lineReader struct {
	line
	err error
}

func (r *lineReader) port(option string) uint16 { return r.number(r.after(option)) }

func (r *lineReader) number(text string) uint16 {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil && r.err == nil {
		r.err = err
	}
	return uint16(n)
}

func (r *lineReader) addr(option string) netip.Addr { return r.prefix(r.after(option)).Addr() }

func (r *lineReader) prefix(text string) netip.Prefix {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			r.err = err
			return netip.Prefix{}
		}
		return netip.PrefixFrom(a, a.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		r.err = err
	}
	return p
}

func (r *lineReader) source(from, port, all string) firewall.Source {
	addr, ports := r.after(from), r.after(port)
	if addr == "" && ports == "" {
		return firewall.Source{}
	}
	if addr == "" {
		addr = all
	}
	s := firewall.Source{Prefix: r.prefix(addr), High: lastPort}
	if ports != "" {
		low, high, isRange := strings.Cut(ports, ":")
		s.Low = r.number(low)
		if s.High = s.Low; isRange {
			s.High = r.number(high)
		}
	}
	return s
}
