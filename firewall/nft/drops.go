package nft

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Asked is what a client on a LAN sends to this machine.
type Asked struct {
	LAN       string
	To        []netip.Addr // one of these, all of one family
	Transport portmap.Transport
	Port      uint16
}

// Drops returns, for each that is asked, a base chain at hook input that drops it for
// certain, as its rules say; "" where there is none. A rule that may let it pass, as far as
// it is understood, counts as one that does; so does what cannot be read before ctx ends.
func Drops(ctx context.Context, asked []Asked) (chains []string, err error) {
	r := &reader{}
	defer r.close()
	s := &dropScan{foreignScan: foreignScan{ctx: ctx, reader: r, rules: make(map[firewall.Chain][]ruleRead)}}
	bases, policies, err := s.bases()
	if err != nil {
		return nil, fmt.Errorf("nft: listing the owner's rules: %w", explain(err))
	}
	chains = make([]string, len(asked))
	for i, a := range asked {
		s.asked, s.wan, s.wanAddrs, s.read = a, []string{a.LAN}, nil, 0
		s.six = len(a.To) > 0 && a.To[0].Is6()
		for _, to := range a.To {
			s.wanAddrs = append(s.wanAddrs, to.AsSlice())
		}
		for j, c := range bases {
			if c.Family == "ip" && s.six || c.Family == "ip6" && !s.six {
				continue
			}
			out := s.chain(c, anything(), 0)
			if accepts := policies[j] != nftables.ChainPolicyDrop; out == stops || !accepts && out != passes {
				chains[i] = c.Family + " " + c.Table + " " + c.Name
			}
		}
	}
	return chains, nil
}

// dropScan is one look at what becomes of a packet.
type dropScan struct {
	foreignScan
	asked Asked
}

// outcome is what becomes of the packet in a chain or at a rule.
type outcome int

const (
	goesOn  outcome = iota // to the next rule
	returns                // perhaps, from the chain
	passes                 // perhaps
	stops                  // for certain
)

// bases returns the chains that filter what is for this machine, but ours.
func (s *dropScan) bases() (chains []firewall.Chain, policies []nftables.ChainPolicy, err error) {
	err = s.reader.do(s.ctx, func(q *nftables.Conn, _ *netlink.Conn) error {
		chains, policies = nil, nil
		all, err := q.ListChains()
		for _, c := range all {
			family := familyNames[c.Table.Family]
			if c.Table.Family == nftables.TableFamilyIPv6 {
				family = "ip6"
			}
			if family == "" || family == "inet" && Ours(c.Table.Name) || c.Type != nftables.ChainTypeFilter ||
				c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookInput || c.Policy == nil {
				continue
			}
			chains = append(chains, firewall.Chain{Family: family, Table: c.Table.Name, Name: c.Name})
			policies = append(policies, *c.Policy)
		}
		return err
	})
	return chains, policies, err
}

// chain follows a chain.
func (s *dropScan) chain(c firewall.Chain, given conditions, depth int) outcome {
	if depth > maxForeignDepth || s.ctx.Err() != nil {
		return passes
	}
	rules, known := s.rules[c]
	if !known {
		var err error
		if rules, err = s.reader.rules(s.ctx, tableOf(c), c.Name); err != nil {
			return passes
		}
		s.rules[c] = rules
	}
	all := goesOn
	for _, r := range rules {
		if s.read++; s.read > maxForeignRules {
			return passes
		}
		switch out := s.rule(c, r, given.copy(), depth); {
		case out == passes:
			return passes
		case out == stops && all == goesOn:
			return stops
		case out == stops: // for what has not left the chain before
			return all
		case out == returns:
			all = returns
		}
	}
	return all
}

// met reports whether the packet may be one that meets the conditions.
func (s *dropScan) met(cond conditions) bool {
	return slices.ContainsFunc(cond.claims, func(c claim) bool {
		return c.transports.has(s.asked.Transport) && c.low <= s.asked.Port && s.asked.Port <= c.high
	})
}

// rule follows one rule. Only one without any condition stops for certain.
func (s *dropScan) rule(c firewall.Chain, r ruleRead, cond conditions, depth int) outcome {
	var now loaded
	var ct *uint32 // what the packet has of what was loaded last
	always := true
	certainly := func() outcome {
		if always {
			return stops
		}
		return goesOn
	}
	for _, raw := range r.exprs {
		if raw.idle() {
			continue
		}
		switch e := raw.read(tableOf(c).Family).(type) {
		case *expr.Counter:
			continue
		case *expr.Verdict:
			return s.verdict(c, e, cond, depth, certainly)
		case *expr.Target:
			switch e.Name {
			case "REJECT":
				return certainly()
			case "LOG", "NFLOG", "MARK", "CONNMARK":
				return goesOn
			}
			return passes
		case *expr.Bitwise:
			if ct == nil || len(e.Mask) < 4 || len(e.Xor) < 4 {
				now.spoil()
				ct = nil
				break
			}
			*ct = *ct&binaryutil.NativeEndian.Uint32(e.Mask) ^ binaryutil.NativeEndian.Uint32(e.Xor)
		case *expr.Cmp:
			if ct == nil {
				s.condition(e, &now, &cond)
			} else if len(e.Data) >= 4 && !same(e.Op, *ct, binaryutil.NativeEndian.Uint32(e.Data)) {
				return goesOn
			}
		case *expr.Lookup:
			if met := s.member(c, e, ct, &now, &cond); e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
				if met && s.met(cond) {
					return passes
				}
				return goesOn
			} else if !met {
				return goesOn
			}
		case *expr.Match:
			if e.Name == "conntrack" {
				if !newState(e) {
					return goesOn
				}
			} else {
				s.condition(e, &now, &cond)
			}
		case nil:
			switch raw.name {
			case "log":
				continue
			case "reject":
				return certainly()
			case "queue":
				return passes
			}
			now, ct = loaded{fields: []field{{contentOther, 4}}}, s.conntrack(c, raw)
		default:
			ct = nil
			s.condition(e, &now, &cond)
		}
		if always = false; !s.met(cond) {
			return goesOn
		}
	}
	return goesOn
}

func (s *dropScan) verdict(c firewall.Chain, e *expr.Verdict, cond conditions, depth int, certainly func() outcome) outcome {
	switch e.Kind {
	case expr.VerdictAccept, expr.VerdictQueue:
		return passes
	case expr.VerdictDrop:
		return certainly()
	case expr.VerdictReturn:
		return returns
	case expr.VerdictJump, expr.VerdictGoto:
		switch s.chain(firewall.Chain{Family: c.Family, Table: c.Table, Name: e.Chain}, cond, depth+1) {
		case passes:
			return passes
		case stops:
			return certainly()
		}
		if e.Kind == expr.VerdictGoto { // whose end is that of this chain
			return returns
		}
	}
	return goesOn
}

// conntrack returns what the first packet of a flow that nobody has translated has, in the
// order of the machine; nil where that is not known.
func (s *dropScan) conntrack(c firewall.Chain, raw rawExpr) *uint32 {
	var e expr.Ct
	if raw.name != "ct" || expr.Unmarshal(byte(tableOf(c).Family), raw.data, &e) != nil || e.SourceRegister {
		return nil
	}
	var v uint32
	switch e.Key {
	case expr.CtKeySTATE:
		v = expr.CtStateBitNEW
	case expr.CtKeySTATUS:
	default:
		return nil
	}
	return &v
}

func same(op expr.CmpOp, a, b uint32) bool {
	switch op {
	case expr.CmpOpEq:
		return a == b
	case expr.CmpOpNeq:
		return a != b
	}
	return true
}

// member reports whether the packet may be among the members of a set or map.
func (s *dropScan) member(c firewall.Chain, e *expr.Lookup, ct *uint32, now *loaded, cond *conditions) bool {
	if ct == nil {
		if slices.ContainsFunc(now.fields, func(f field) bool { return f.content != contentOther }) {
			s.lookup(c, e, now, cond)
		} // no member of a set of addresses, which may be a long one, says anything
		return true
	}
	members, err := s.reader.dump(s.ctx, tableOf(c).Family, c.Table, e.SetName)
	if err != nil || e.Invert {
		return true
	}
	return slices.ContainsFunc(members, func(m element) bool {
		return len(m.key) < 4 || m.intervalEnd || binaryutil.NativeEndian.Uint32(m.key) == *ct
	})
}

// newState reports whether iptables' extension of that name may match the first packet of
// a flow.
func newState(e *expr.Match) bool {
	var base xt.ConntrackMtinfoBase
	var states uint16
	switch info := e.Info.(type) {
	case *xt.ConntrackMtinfo1:
		base, states = info.ConntrackMtinfoBase, uint16(info.StateMask)
	case *xt.ConntrackMtinfo2:
		base, states = info.ConntrackMtinfoBase, info.StateMask
	case *xt.ConntrackMtinfo3:
		base, states = info.ConntrackMtinfoBase, info.StateMask
	default:
		return true
	}
	if base.MatchFlags&uint16(xt.ConntrackState) == 0 {
		return true
	}
	return (states&uint16(expr.CtStateBitNEW) != 0) != (base.InvertFlags&uint16(xt.ConntrackState) != 0)
}
