package nft

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"portcullis/firewall"
)

// The accept chain.
//
// Accepting a packet in one base chain does not save it from a drop in another,
// so where the owner's forward chain drops what it does not know, it must be told
// of the mappings. The owner names that chain; we put one jump at its top. A
// jump cannot leave its table and a set belongs to one, so the chain it leads to
// and the sets that chain looks up stand in the owner's table too. They are
// filled in the same transaction as ours, so the owner's chain accepts exactly
// what is mapped at that moment: not what the owner translates himself, nor what
// was mapped a moment ago. A mark needs less, but belongs to the owner: it is for the
// tables of iptables alone, where our chain would be in the way (marks.go).
//
// Each family has a part of its own: its chain with one jump to it, and its sets.
// Where the owner's chain is of family inet both parts are beside it.
//
// A reload of the owner's firewall may flush the jump and our rules, or take the
// whole table with it; Configure, Replace, Audit and, where it hurts, Apply put
// them back.

// family is an index of the parts.
type family int

const (
	family4 family = iota
	family6
)

// String is for the log.
func (f family) String() string {
	if f == family6 {
		return "IPv6"
	}
	return "IPv4"
}

var families = []family{family4, family6}

// partNames are what a part is made of in the owner's table.
type partNames struct {
	chain, comment string
	sets           []string
}

// Names in the owner's table.
var (
	acceptFlowNames = flowNames{
		anyone: "portcullis_flows", host: "portcullis_flows_from",
		tcp: "portcullis_flows_filtered_tcp", udp: "portcullis_flows_filtered_udp",
	}
	acceptPinNames = pinNames{
		anyone: "portcullis_pinholes", host: "portcullis_pinholes_from", filtered: "portcullis_pinholes_filtered",
	}
	acceptWAN6, acceptLAN = "portcullis_wan6_ifaces", "portcullis_lan_ifaces"

	acceptNames = [...]partNames{
		family4: {"portcullis_forward", "portcullis: mapped traffic may pass", acceptFlowNames.list()},
		family6: {"portcullis_forward6", "portcullis: IPv6 pinholes may pass", append(acceptPinNames.list(), acceptWAN6, acceptLAN)},
	}
)

// acceptedHere are the parts that are in the kernel; nil: not there.
type acceptedHere [2]*acceptPart

// acceptPart is our part of the owner's table for one family.
type acceptPart struct {
	family   family
	chain    firewall.Chain
	table    *nftables.Table
	flows    flowSets      // of IPv4
	pins     pinSets       // of IPv6
	wan, lan *nftables.Set // of IPv6: the interfaces
	rules    string        // of our chain, as the kernel told them when they were written
	ids      uint32
}

func newAcceptPart(f family, chain firewall.Chain, size uint32) *acceptPart {
	a := &acceptPart{family: f, chain: chain, table: tableOf(chain)}
	// The skeleton knows how to make sets; these are its sets elsewhere.
	s := &skeleton{table: a.table}
	if f == family4 {
		a.flows = s.flowSets(acceptFlowNames, size)
	} else {
		a.pins = s.pinSets(acceptPinNames, size)
		a.wan, a.lan = s.fact(acceptWAN6, nftables.TypeIFName), s.fact(acceptLAN, nftables.TypeIFName)
	}
	a.ids = s.ids
	return a
}

func (a *acceptPart) nextID() uint32 {
	a.ids++
	return a.ids
}

func tableOf(c firewall.Chain) *nftables.Table {
	t := &nftables.Table{Name: c.Table, Family: nftables.TableFamilyINet}
	switch c.Family {
	case "ip":
		t.Family = nftables.TableFamilyIPv4
	case "ip6":
		t.Family = nftables.TableFamilyIPv6
	}
	return t
}

// sets returns the sets of the part.
func (a *acceptPart) sets() []*nftables.Set { return append(a.mappingSets(), a.factSets()...) }

// mappingSets returns those that hold mappings.
func (a *acceptPart) mappingSets() []*nftables.Set {
	if a.family == family4 {
		return a.flows.all()
	}
	return a.pins.all()
}

// factSets returns those that describe the gateway.
func (a *acceptPart) factSets() []*nftables.Set {
	if a.family == family4 {
		return nil
	}
	return []*nftables.Set{a.wan, a.lan}
}

// facts returns the elements of those.
func (a *acceptPart) facts(g firewall.Facts) *elements {
	e := newElements()
	if a.family == family6 {
		e.interfaces(a.wan, g.WAN6)
		e.interfaces(a.lan, g.LAN)
	}
	return e
}

// createSets and createRules queue the two halves.
func (a *acceptPart) createSets(q *nftables.Conn) error {
	for _, set := range a.sets() {
		if err := q.AddSet(set, nil); err != nil {
			return err
		}
	}
	return nil
}

func (a *acceptPart) createRules(q *nftables.Conn) error {
	b := &chainBuilder{queue: q, table: a.table, nextID: a.nextID}
	chain := b.plain(acceptNames[a.family].chain)
	var ours match
	if a.family == family4 {
		b.allowMapped(chain, a.flows, accept())
		ours = ctStatusDNAT()
	} else {
		b.allowPins(chain, a.pins, a.wan, a.lan, accept())
		ours = ipv6(a.table)
	}
	q.InsertRule(&nftables.Rule{
		Table: a.table, Chain: &nftables.Chain{Name: a.chain.Name, Table: a.table},
		Exprs: rule(ours, jump(chain)), UserData: comment(acceptNames[a.family].comment),
	})
	return b.err
}

// ownersTable is what there is in the table of an accept chain, of one family.
type ownersTable struct {
	chain      firewall.Chain
	setting    string // what names the chain
	names      partNames
	chainThere bool
	ours       bool     // our chain is there
	sets       []string // and those of our sets
	jumps      []uint64 // handles of the rules that lead from the owner's chain into ours
	rules      string   // of our chain, as the kernel tells them
}

// intact reports whether all of ours is there, with the rules that it should have.
func (o *ownersTable) intact(rules string) bool {
	return o.ours && len(o.sets) == len(o.names.sets) && len(o.jumps) == 1 && o.rules == rules
}

// remove queues the removal of whatever is there of ours, and of nothing else.
func (o *ownersTable) remove(q *nftables.Conn) error {
	table := tableOf(o.chain)
	for _, handle := range o.jumps {
		jump := &nftables.Rule{Table: table, Chain: &nftables.Chain{Name: o.chain.Name, Table: table}, Handle: handle}
		if err := q.DelRule(jump); err != nil {
			return err
		}
	}
	if o.ours {
		chain := &nftables.Chain{Name: o.names.chain, Table: table}
		q.FlushChain(chain)
		q.DelChain(chain)
	}
	for _, name := range o.sets {
		q.DelSet(&nftables.Set{Name: name, Table: table})
	}
	return nil
}

// wrong returns what is wrong with the chain.
func (o *ownersTable) wrong(format string, args ...any) error {
	return &firewall.ChainError{Chain: o.chain, Setting: o.setting, Detail: fmt.Sprintf(format, args...)}
}

// inspect looks at the table of an accept chain. It gives a *firewall.ChainError
// where the chain cannot serve.
func (r *reader) inspect(ctx context.Context, f family, chain wantedChain) (*ownersTable, error) {
	o := &ownersTable{chain: chain.Chain, setting: chain.setting, names: acceptNames[f]}
	table := tableOf(chain.Chain)
	err := r.do(ctx, func(q *nftables.Conn, _ *netlink.Conn) error { return o.readChains(q, table) })
	if err != nil {
		return nil, err
	}
	if o.sets, err = r.setNames(ctx, table); err != nil {
		return nil, err
	}
	o.sets = slices.DeleteFunc(o.sets, func(s string) bool { return !slices.Contains(o.names.sets, s) })
	rules, err := r.rules(ctx, table, chain.Name)
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if leadsTo(rule) == o.names.chain {
			o.jumps = append(o.jumps, rule.handle)
		}
	}
	if o.ours {
		if rules, err = r.rules(ctx, table, o.names.chain); err != nil {
			return nil, err
		}
		for _, rule := range rules {
			o.rules += rule.text() + "\n"
		}
	}
	return o, nil
}

// leadsTo returns the chain a rule ends by jumping to, or "".
func leadsTo(r ruleRead) string {
	if len(r.exprs) == 0 || r.exprs[len(r.exprs)-1].name != "immediate" {
		return ""
	}
	return targetOf(verdictIn(r.exprs[len(r.exprs)-1].data))
}

// readChains finds the owner's chain and ours.
func (o *ownersTable) readChains(q *nftables.Conn, table *nftables.Table) error {
	tables, err := q.ListTablesOfFamily(table.Family)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table.Name }) {
		return o.wrong("there is no table %s %s; start the firewall that makes it before portcullis, or correct the name",
			o.chain.Family, o.chain.Table)
	}
	chains, err := q.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.Table.Name != table.Name {
			continue
		}
		if ofIptables(o.chain, c) {
			return o.wrong("that table belongs to iptables, which cannot delete a chain while one of ours leads there; " +
				"name its chain FORWARD, or set firewall.backend to iptables")
		}
		if c.Name == o.names.chain {
			o.ours = true
		}
		if c.Name == o.chain.Name {
			o.chainThere = true
			if c.Hooknum != nil && (*c.Hooknum != *nftables.ChainHookForward || c.Type != nftables.ChainTypeFilter) {
				return o.wrong("it does not filter forwarded packets; " +
					"name a chain of type filter at hook forward, or one that it jumps to")
			}
		}
	}
	if !o.chainThere {
		return o.wrong("table %s %s has no chain %s; name the chain that filters forwarded packets (nft list ruleset shows it)",
			o.chain.Family, o.chain.Table, o.chain.Name)
	}
	return nil
}

// ofIptables reports whether a chain shows that its table is iptables' own
// (measured with iptables-nft 1.8.9: it drops a set lookup from what it saves, and
// -X fails on a chain that has rules).
func ofIptables(want firewall.Chain, c *nftables.Chain) bool {
	want.Name = c.Name
	return want.OfIPTables() && c.Hooknum != nil
}
