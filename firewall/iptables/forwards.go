package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Bounds of one look at the owner's rules.
const (
	maxForeignRules = 100_000
	maxForeignDepth = 16
	maxWhere        = 64 // bytes of a rule that are shown
)

// Forwarded finds which external ports the owner's own rules forward already, in
// nf_tables, where those of iptables-nft are, and in iptables-legacy where that is
// the flavour: there DNAT and REDIRECT in PREROUTING, through jumps, as far as they are for
// the WAN and an address of ours. A condition that is not understood counts as met
// where a port is named, so a port may be called taken that is not; a rule that
// names no port is passed over if it has one. No program is run where the table is as it was.
func (b *Backend) Forwarded(ctx context.Context) (*firewall.Forwards, error) {
	found, err := b.Backend.Forwarded(ctx)
	if err != nil || b.Flavour() != legacy {
		return found, err
	}
	g, err := b.Facts()
	if err != nil {
		return nil, err
	}
	p := b.rules[four].programs
	sum, shows := p.shown("nat")
	s := b.scanned.Load()
	if !shows || s == nil || !s.holds(sum, g) {
		there, err := p.save(ctx, "nat")
		if err != nil {
			return nil, fmt.Errorf("iptables: listing the owner's rules: %w", err)
		}
		s = newScan(there, g)
		if s.sum = sum; shows && p.still("nat", sum) {
			b.scanned.Store(s)
		}
	}
	for _, r := range s.found.All() {
		found.Add(r.Transport, r.Ports.First, r.Ports.Last, r.By)
	}
	return found, nil
}

// scan is one look, or what is kept of it.
type scan struct {
	*saved
	wan   []string
	addrs []netip.Addr
	read  int
	found firewall.Forwards
	sum   uint64 // of the table just before
}

func newScan(there *saved, g firewall.Facts) *scan {
	s := &scan{saved: there, wan: uplinks(g), addrs: g.WANAddrs()}
	s.chain("PREROUTING", nil, 0)
	s.saved = nil
	return s
}

// holds reports whether a look would find the same.
func (s *scan) holds(sum uint64, g firewall.Facts) bool {
	return s.sum == sum && slices.Equal(s.wan, uplinks(g)) && slices.Equal(s.addrs, g.WANAddrs())
}

func uplinks(g firewall.Facts) (names []string) {
	for _, up := range g.WAN {
		names = append(names, up.Interface)
	}
	return names
}

// chain follows a chain; given is what the rules that led here say.
func (s *scan) chain(name string, given []line, depth int) {
	if depth > maxForeignDepth {
		return
	}
	for _, l := range s.chains[chainKey{"nat", name}] {
		if s.read++; s.read > maxForeignRules {
			return
		}
		if !s.fromOutside(l) {
			continue
		}
		path := append(slices.Clone(given), l)
		switch target := l.target(); target {
		case "DNAT", "REDIRECT":
			s.forward(name, path)
		default:
			if _, known := s.chains[chainKey{"nat", target}]; known {
				s.chain(target, path, depth+1)
			}
		}
	}
}

// fromOutside reports whether a packet from the WAN to us may meet a rule.
func (s *scan) fromOutside(l line) bool {
	if in := l.after("-i"); in != "" {
		met := slices.ContainsFunc(s.wan, func(w string) bool {
			return w == in || strings.HasSuffix(in, "+") && strings.HasPrefix(w, strings.TrimSuffix(in, "+"))
		})
		if met == l.negated("-i") {
			return false
		}
	}
	if dst := l.after("-d"); dst != "" {
		p, err := netip.ParsePrefix(dst)
		if err == nil && slices.ContainsFunc(s.addrs, p.Contains) == l.negated("-d") {
			return false
		}
	}
	return true
}

// known are the options that fromOutside and forward understand.
var known = []string{"-i", "-d", "-p", "-m", "-j", "-g", "--dport", "--dports", "--to-destination", "--to-ports",
	"--comment", "--random", "--persistent", "!", "--dst-type"}

func (s *scan) forward(chain string, path []line) {
	protocol, ports, odd := "", "", false
	for _, l := range path {
		if p := l.after("-p"); p != "" {
			if l.negated("-p") {
				return
			}
			protocol = p
		}
		for _, option := range []string{"--dport", "--dports"} {
			if p := l.after(option); p != "" && !l.negated(option) {
				ports = p
			}
		}
		for _, w := range l.words {
			if strings.HasPrefix(w, "-") && !slices.Contains(known, w) {
				odd = true
			}
		}
	}
	if ports == "" {
		if odd {
			return
		}
		ports = "1:65535"
	}
	where := fmt.Sprintf("iptables nat %s: %.*q", chain, maxWhere, path[len(path)-1].text())
	for _, t := range transports(protocol) {
		for part := range strings.SplitSeq(ports, ",") {
			low, high, isRange := strings.Cut(part, ":")
			if !isRange {
				high = low
			}
			from, err1 := strconv.ParseUint(low, 10, 16)
			to, err2 := strconv.ParseUint(high, 10, 16)
			if err1 == nil && err2 == nil {
				s.found.Add(t, uint16(from), uint16(to), where)
			}
		}
	}
}

func transports(protocol string) []portmap.Transport {
	switch protocol {
	case "tcp", "6":
		return []portmap.Transport{portmap.TCP}
	case "udp", "17":
		return []portmap.Transport{portmap.UDP}
	case "", "all", "0":
		return []portmap.Transport{portmap.TCP, portmap.UDP}
	}
	return nil
}
