package nft

import (
	"context"
	"fmt"
	"iter"
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

// mappingsChanged is what is wrong with a table whose mappings are not ours.
const mappingsChanged = "our mappings were changed"

// entriesDrift compares the sets of our table that mappings are in with what they should hold.
func (k *kernel) entriesDrift(ctx context.Context, want iter.Seq[firewall.Entry]) (string, error) {
	digests := make(map[string]*digest)
	for _, name := range slices.Concat([]string{"mapped", "mapped_from", "mapped_filtered", "kept_ports", "mapped_ports"}, ownFlowNames.list(), ownPinNames.list()) {
		digests[name] = new(digest)
	}
	for e := range want { // under the lock, as is k.own
		k.own.each(e, func(set *nftables.Set, el nftables.SetElement) {
			if d := digests[set.Name]; d != nil { // else of marks, see copiesDrift
				d.addElement(el.Key, el.KeyEnd, el.Val)
			}
		})
	}
	for name, want := range digests {
		held, err := k.reader.agrees(ctx, name, want)
		if err != nil {
			return "", err
		}
		if !held {
			return mappingsChanged, nil
		}
	}
	return "", nil
}

// agrees reports whether a set of our table holds this. A listing that is as it should be is
// right: of one that is not, see dumpSettled.
func (r *reader) agrees(ctx context.Context, set string, want *digest) (bool, error) {
	var last digest
	for try := range dumpTries {
		held, err := r.digestOf(ctx, nftables.TableFamilyINet, Table, set)
		if err != nil {
			return false, err
		}
		if held.equal(*want) {
			return true, nil
		}
		if try > 0 && held.equal(last) {
			return false, nil
		}
		last = held
	}
	return false, fmt.Errorf("listing set %s: %w", set, firewall.ErrChanging)
}

// digestOf returns the digest of the elements that a set holds.
func (r *reader) digestOf(ctx context.Context, family nftables.TableFamily, table, set string) (held digest, err error) {
	_, err = r.scan(ctx, family, table, set, func() { held = digest{} }, func(el element) { held.addElement(el.key, el.keyEnd, el.val) })
	return held, err
}

// copiesDrift compares what is kept of the mappings beside what counts them: for packets
// that are marked, and in the owner's tables.
func (k *kernel) copiesDrift(ctx context.Context, want iter.Seq[firewall.Entry]) (drift string, lost bool, err error) {
	whole, err := k.marksIntact(ctx, want)
	if err != nil || !whole {
		return mappingsChanged, false, err
	}
	for _, f := range families {
		part := k.accept[f]
		if part == nil {
			continue
		}
		only := acceptedHere{}
		only[f] = part
		held, err := k.quick.holdsMappings(ctx, want, (&target{accept: only}).each, part.mappingSets())
		if err != nil || !held {
			k.accept[f], lost = nil, true
		}
	}
	return "", lost, nil
}

// holdsMappings reports whether sets hold the elements that each makes of entries.
func (r *reader) holdsMappings(ctx context.Context, entries iter.Seq[firewall.Entry], each func(firewall.Entry, func(*nftables.Set, nftables.SetElement)), sets []*nftables.Set) (bool, error) {
	digests := make(map[*nftables.Set]*digest, len(sets))
	for _, set := range sets {
		digests[set] = new(digest)
	}
	for e := range entries {
		each(e, func(set *nftables.Set, el nftables.SetElement) { digests[set].addElement(el.Key, el.KeyEnd, el.Val) })
	}
	for _, set := range sets {
		held, err := r.digestOf(ctx, set.Table.Family, set.Table.Name, set.Name)
		if err != nil || !digests[set].equal(held) {
			return false, err
		}
	}
	return true, nil
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
