package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"portcullis/firewall/nft"
)

// Blame names a base chain without which a packet would pass.
type Blame struct {
	Chain      string // "inet hostfw forward", "iptables-legacy filter FORWARD"
	OfIPTables bool   // it belongs to iptables
	Elsewhere  bool   // and not at the hook where a packet on this way is let pass: before it, say
	Answers    bool   // but where the answer of this machine is
}

// gate is a base chain of somebody else's, with a way past its rules that can be opened
// and shut.
type gate struct {
	Blame
	set func(open bool) error
}

// blame returns those that keep a packet from passing, each of which does it alone. None
// means that the packet does not pass with all of them open either.
func blame(gates []gate, passes func() (bool, error)) ([]Blame, error) {
	for _, g := range gates {
		if err := g.open(true); err != nil {
			return nil, err
		}
	}
	if passed, err := patiently(passes); err != nil || !passed {
		return nil, err
	}
	var all []Blame
	for _, g := range gates {
		if err := g.open(false); err != nil {
			return nil, err
		}
		passed, err := patiently(passes)
		if err != nil {
			return nil, err
		}
		if !passed {
			all = append(all, g.Blame)
		}
		if err := g.open(true); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (g *gate) open(open bool) error {
	if err := g.set(open); err != nil {
		return fmt.Errorf("try without %s: %w", g.Chain, err)
	}
	return nil
}

// patiently tries more than once, before anybody is blamed: the machine may be busy.
func patiently(passes func() (bool, error)) (bool, error) {
	for range patientTries {
		if passed, err := passes(); passed || err != nil {
			return passed, err
		}
	}
	return false, nil
}

// way is the hooks that packets pass, and which built-in chains of iptables are there.
type way struct {
	at     *nftables.ChainHook // where a packet is let pass or not
	others []*nftables.ChainHook
	legacy [][2]string // table, chain; of the first one rules are expected
}

var (
	throughWay = way{
		nftables.ChainHookForward, []*nftables.ChainHook{nftables.ChainHookPrerouting},
		[][2]string{{"filter", "FORWARD"}, {"mangle", "FORWARD"}, {"mangle", "PREROUTING"}, {"raw", "PREROUTING"}},
	}
	askWay = way{
		nftables.ChainHookInput, []*nftables.ChainHook{nftables.ChainHookPrerouting, nftables.ChainHookOutput},
		[][2]string{{"filter", "INPUT"}, {"mangle", "INPUT"}, {"mangle", "PREROUTING"}, {"raw", "PREROUTING"}, {"filter", "OUTPUT"}},
	}
)

// gates returns the chains of others that a packet to an address meets on its way.
func (c *copied) gates(ctx context.Context, rules []Rules, w way, to netip.Addr) ([]gate, error) {
	q, err := nftables.New(nftables.WithNetNSFd(c.gateway.FD()))
	if err != nil {
		return nil, err
	}
	chains, err := q.ListChains()
	if err != nil && len(rules) > 0 && rules[0].Load[0] == "nft" {
		return nil, err
	}
	var all []gate
	for _, chain := range chains {
		if !inTheWay(chain, w, to) {
			continue
		}
		ofIPTables := ofIPTables(chain)
		elsewhere := *chain.Hooknum != *w.at || ofIPTables && chain.Table.Name != "filter"
		all = append(all, gate{Blame{nameOf(chain), ofIPTables, elsewhere, *chain.Hooknum == *nftables.ChainHookOutput}, bypass(q, chain)})
	}
	return append(all, c.legacyGates(ctx, rules, w, to)...), nil
}

// bypass puts a jump at the head of a chain; where it leads to accepts, or does nothing.
func bypass(q *nftables.Conn, chain *nftables.Chain) func(bool) error {
	verdict := func(kind expr.VerdictKind, to string) []expr.Any {
		return []expr.Any{&expr.Verdict{Kind: kind, Chain: to}}
	}
	round := &nftables.Chain{Name: "portcullis_doctor_" + chain.Name, Table: chain.Table}
	made := false
	return func(open bool) error {
		if !made {
			q.AddChain(round)
			q.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: verdict(expr.VerdictJump, round.Name)})
			made = true
		}
		q.FlushChain(round)
		if open {
			q.AddRule(&nftables.Rule{Table: chain.Table, Chain: round, Exprs: verdict(expr.VerdictAccept, "")})
		}
		return q.Flush()
	}
}

// legacyGates returns the same of the built-in chains of iptables-legacy, which are not in
// nf_tables.
func (c *copied) legacyGates(ctx context.Context, rules []Rules, w way, to netip.Addr) []gate {
	var all []gate
	for _, r := range rules {
		program, legacy := strings.CutSuffix(r.Load[0], "-restore")
		if !legacy || strings.HasSuffix(program, "-nft") || strings.HasPrefix(program, "ip6") != to.Is6() {
			continue // what iptables-nft has is in nf_tables
		}
		for i, place := range w.legacy {
			table, chain := place[0], place[1]
			if !strings.Contains(r.Text, "*"+table+"\n") {
				continue
			}
			is := false
			all = append(all, gate{Blame{program + " " + table + " " + chain, true, i > 0, chain == "OUTPUT"}, func(open bool) error {
				if open == is {
					return nil
				}
				is = open
				change := []string{program, "-t", table, "-D", chain, "1"}
				if open {
					change = []string{program, "-t", table, "-I", chain, "1", "-j", "ACCEPT"}
				}
				return c.run(ctx, "", change...)
			}})
		}
	}
	return all
}

// inTheWay reports whether a chain of somebody else's filters what takes this way.
func inTheWay(c *nftables.Chain, w way, to netip.Addr) bool {
	if c.Hooknum == nil || c.Type != nftables.ChainTypeFilter || c.Table.Family == nftables.TableFamilyINet && nft.Ours(c.Table.Name) {
		return false
	}
	here := func(h *nftables.ChainHook) bool { return *c.Hooknum == *h }
	if !here(w.at) && !slices.ContainsFunc(w.others, here) {
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyINet:
		return true
	case nftables.TableFamilyIPv4:
		return to.Is4()
	case nftables.TableFamilyIPv6:
		return to.Is6()
	}
	return false
}

var hooksOfIPTables = []string{"FORWARD", "PREROUTING", "INPUT", "OUTPUT"}

// ofIPTables reports whether a chain is one that the programs of iptables made: they
// alone write the built-in names in capitals.
func ofIPTables(c *nftables.Chain) bool {
	return c.Table.Family != nftables.TableFamilyINet && slices.Contains(hooksOfIPTables, c.Name)
}

func nameOf(c *nftables.Chain) string {
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	}[c.Table.Family]
	return family + " " + c.Table.Name + " " + c.Name
}
