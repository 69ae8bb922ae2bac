package nft

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Bounds of one look at the owner's rules.
const (
	maxForeignRules = 100_000
	maxForeignDepth = 16 // the kernel's own limit for jumps
	maxWhereComment = 64 // bytes of a rule's comment that are shown
)

// Forwarded finds which external ports the owner's own nf_tables rules forward
// already: destination NAT and redirects in prerouting, as nft, fw4, firewalld,
// iptables-nft and Docker write them. Mappings for such ports would never work,
// because the owner's rule comes first.
//
// It reads what stands there: transports, destination ports (single, ranges, sets,
// maps), the arrival interface and the destination address, through jumps. Other
// conditions count as met where a port is named, so a port may be called taken that is
// not; a rule that names no port and has a condition that is not understood is passed
// over. So are verdict maps, which none of those programs writes there. Rules of
// iptables-legacy are invisible to nf_tables.
func (b *Backend) Forwarded(ctx context.Context) (*firewall.Forwards, error) {
	g, err := b.Facts()
	if err != nil {
		return nil, err
	}
	s := &foreignScan{ctx: ctx, reader: &b.kernel.reader, rules: make(map[firewall.Chain][]ruleRead)}
	for _, up := range g.WAN {
		s.wan = append(s.wan, up.Interface)
		for _, a := range up.IPv4() {
			s.wanAddrs = append(s.wanAddrs, a.AsSlice())
		}
	}
	starts, err := s.baseChains()
	if err != nil {
		return nil, fmt.Errorf("nft: listing the owner's rules: %w", explain(err))
	}
	for _, c := range starts {
		s.chain(c, anything(), 0)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &s.found, nil
}

// foreignScan is one look.
type foreignScan struct {
	ctx      context.Context
	reader   *reader
	wan      []string
	wanAddrs [][]byte
	six      bool                          // IPv6 packets are followed
	rules    map[firewall.Chain][]ruleRead // read once each
	read     int                           // rules visited
	found    firewall.Forwards
}

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyINet: "inet",
	nftables.TableFamilyIPv4: "ip",
}

// baseChains returns the NAT chains that see IPv4 packets as they arrive, but ours.
func (s *foreignScan) baseChains() ([]firewall.Chain, error) {
	var starts []firewall.Chain
	err := s.reader.do(s.ctx, func(q *nftables.Conn, _ *netlink.Conn) error {
		chains, err := q.ListChains()
		for _, c := range chains {
			family := familyNames[c.Table.Family]
			ours := family == "inet" && c.Table.Name == Table
			if family == "" || ours || c.Type != nftables.ChainTypeNAT ||
				c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookPrerouting {
				continue
			}
			starts = append(starts, firewall.Chain{Family: family, Table: c.Table.Name, Name: c.Name})
		}
		return err
	})
	return starts, err
}

// chain follows a chain for packets that meet the conditions so far.
func (s *foreignScan) chain(c firewall.Chain, given conditions, depth int) {
	if depth > maxForeignDepth || s.ctx.Err() != nil {
		return
	}
	for _, r := range s.chainRules(c) {
		if s.read++; s.read > maxForeignRules {
			return
		}
		if alwaysEnds(r) {
			return // no packet gets past it
		}
		s.rule(c, r, given.copy(), depth)
	}
}

// alwaysEnds reports whether a rule ends its chain for every packet.
func alwaysEnds(r ruleRead) bool {
	if len(r.exprs) != 1 || r.exprs[0].name != "immediate" {
		return false
	}
	v := verdictIn(r.exprs[0].data)
	return v != nil && (v.Kind == expr.VerdictReturn || v.Kind == expr.VerdictAccept || v.Kind == expr.VerdictDrop)
}

// chainRules reads a chain; one that cannot be read has no rules.
func (s *foreignScan) chainRules(c firewall.Chain) []ruleRead {
	if rules, known := s.rules[c]; known {
		return rules
	}
	rules, err := s.reader.rules(s.ctx, tableOf(c), c.Name)
	if err != nil {
		rules = nil
	}
	s.rules[c] = rules
	return rules
}

// rule follows the expressions of one rule.
func (s *foreignScan) rule(c firewall.Chain, r ruleRead, cond conditions, depth int) {
	var now loaded
	for _, raw := range r.exprs {
		if raw.idle() {
			continue
		}
		switch e := raw.read(tableOf(c).Family).(type) {
		case *expr.NAT:
			if e.Type == expr.NATTypeDestNAT {
				s.hit(c, r, cond)
			}
			return
		case *expr.Redir:
			s.hit(c, r, cond)
			return
		case *expr.Target:
			if e.Name == "DNAT" || e.Name == "REDIRECT" {
				s.hit(c, r, cond)
			}
			return
		case *expr.Verdict:
			if to := targetOf(e); to != "" {
				s.chain(firewall.Chain{Family: c.Family, Table: c.Table, Name: to}, cond, depth+1)
			}
			return
		case *expr.Lookup:
			if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
				return
			}
			s.lookup(c, e, &now, &cond)
		case nil:
			now = loaded{fields: []field{{contentOther, 4}}}
			cond.unclear = cond.unclear || !loads[raw.name]
		default:
			s.condition(e, &now, &cond)
		}
		if cond.never() {
			return
		}
	}
}

// loads are expressions that are not read but only load something (Docker's own rules
// have fib) or say something. All others that are not read may be conditions.
var loads = map[string]bool{
	"byteorder": true, "ct": true, "exthdr": true, "fib": true, "hash": true, "log": true, "numgen": true, "osf": true,
	"rt": true, "socket": true, "tunnel": true, "xfrm": true,
}

// hit records the ports of a rule that forwards.
func (s *foreignScan) hit(c firewall.Chain, r ruleRead, cond conditions) {
	if cond.unclear && cond.anyPort() {
		return
	}
	where := "a rule in chain " + c.Name + " of table " + c.Family + " " + c.Table
	if r.comment != "" {
		where += fmt.Sprintf(" (%q)", r.comment[:min(len(r.comment), maxWhereComment)])
	}
	for _, cl := range cond.claims {
		for _, t := range []portmap.Transport{portmap.TCP, portmap.UDP} {
			if cl.transports.has(t) {
				s.found.Add(t, cl.low, cl.high, where)
			}
		}
	}
}

// lookup narrows the conditions to a set's members.
func (s *foreignScan) lookup(c firewall.Chain, e *expr.Lookup, now *loaded, cond *conditions) {
	members, err := s.reader.dump(s.ctx, tableOf(c).Family, c.Table, e.SetName)
	if err != nil || e.Invert {
		cond.unclear = true
	} else {
		s.narrow(cond, now.fields, spans(members))
	}
	now.compared = true
	if e.IsDestRegSet { // the value of a map
		now.add(field{contentOther, 4})
	}
}
