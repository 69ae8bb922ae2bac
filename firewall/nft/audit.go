package nft

import (
	"context"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"portcullis/firewall"
)

// chainNames are all chains of the skeleton.
var chainNames = []string{
	"dnat_inbound", "dnat_mapped", "snat_outbound", "snat_hairpin", "own_ports", "own_ports_check", "forward_mapped", "allow_mapped", "allow_pinholes",
	"refuse_ended", "front_leash",
}

// rulesDrift returns what is wrong with our table; "" is nothing.
func (k *kernel) rulesDrift(ctx context.Context) (string, error) {
	there, err := k.tableThere(ctx)
	if err != nil {
		return "", err
	}
	if !there {
		return "our table was gone", nil
	}
	print, err := k.fingerprint(ctx)
	if err != nil {
		return "", err
	}
	if k.print == "" {
		k.print = print
	}
	if print != k.print {
		return "our rules were changed", nil
	}
	facts, err := k.quick.holds(ctx, k.own.facts(k.facts), k.own.factSets())
	if err != nil {
		return "", err
	}
	if !facts {
		return "our sets of interfaces and addresses were changed", nil
	}
	return "", nil
}

// copiesDrift compares what is kept of the mappings beside what counts them: for packets
// that are marked, and in the owner's tables.
func (k *kernel) copiesDrift(ctx context.Context, want []firewall.Entry) (drift string, lost bool, err error) {
	whole, err := k.marksIntact(ctx, want)
	if err != nil || !whole {
		return "our mappings were changed", false, err
	}
	for _, f := range families {
		part := k.accept[f]
		if part == nil {
			continue
		}
		only := acceptedHere{}
		only[f] = part
		held, err := k.quick.holds(ctx, (&target{accept: only}).all(want), part.mappingSets())
		if err != nil || !held {
			k.accept[f], lost = nil, true
		}
	}
	return "", lost, nil
}

func (k *kernel) tableThere(ctx context.Context) (there bool, err error) {
	err = k.quick.do(ctx, func(q *nftables.Conn, _ *netlink.Conn) error {
		tables, err := q.ListTablesOfFamily(nftables.TableFamilyINet)
		there = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == Table })
		return err
	})
	return there, err
}

// fingerprint returns all our rules as the kernel tells them. It is compared only
// with itself: the kernel's form is not quite what we sent.
func (k *kernel) fingerprint(ctx context.Context) (string, error) {
	var out strings.Builder
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	names := slices.Clone(chainNames)
	if k.cfg.Mark != 0 {
		names = append(names, chainMark, chainMarkFlows, chainMarkPins, chainUnmark)
	}
	for _, name := range names {
		rules, err := k.quick.rules(ctx, table, name)
		if err != nil {
			return "", err
		}
		for _, r := range rules {
			out.WriteString(name + " " + r.text() + "\n")
		}
	}
	return out.String(), nil
}

// holds reports whether the sets of facts are as written.
func (r *reader) holds(ctx context.Context, facts *elements, sets []*nftables.Set) (bool, error) {
	for _, set := range sets {
		var want, held digest
		for _, el := range facts.added[set] {
			want.add(el.Key, el.Val, el.IntervalEnd)
		}
		_, err := r.scan(ctx, set.Table.Family, set.Table.Name, set.Name, func() { held = digest{} }, func(el element) {
			held.add(el.key, el.val, el.intervalEnd)
		})
		if err != nil || !want.equal(held) {
			return false, err
		}
	}
	return true, nil
}
