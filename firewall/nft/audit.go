package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"portcullis/firewall"
)

// chainNames are all chains of the skeleton.
var chainNames = []string{
	"dnat_inbound", "dnat_mapped", "snat_outbound", "snat_hairpin", "own_ports", "own_ports_check", "forward_mapped", "allow_mapped", "allow_pinholes",
	"refuse_ended",
}

const acceptLost = "our part of the accept chain was missing"

// Audit compares the kernel with what it should hold, writes it anew where it
// differs, and says what was wrong; "" is nothing. Rules, gateway facts and the
// accept chain are always compared, at a cost that does not depend on the
// mappings; with full the mappings are too, which takes as long as Counters.
func (b *Backend) Audit(ctx context.Context, full bool) (drift string, err error) {
	drift, err = b.auditSkeleton(ctx)
	if err == nil && full && drift == "" {
		drift, err = b.auditEntries(ctx)
	}
	if drifted(err) { // it went while it was read
		drift, err = b.auditSkeleton(ctx)
	}
	if err != nil {
		return drift, fmt.Errorf("nft audit: %w", explain(err))
	}
	return drift, nil
}

func (b *Backend) auditSkeleton(ctx context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return "", firewall.ErrClosed
	}
	drift, err := b.skeletonDrift(ctx)
	if err != nil {
		return "", err
	}
	if drift != "" {
		return drift, b.repair(ctx, drift)
	}
	lost, err := b.ensureAccept(ctx)
	switch {
	case err != nil:
		return "the accept chain is missing", err
	case lost:
		return acceptLost, nil
	}
	return "", nil
}

func (b *Backend) skeletonDrift(ctx context.Context) (string, error) {
	if !b.installed {
		return "our table was not written", nil
	}
	there, err := b.tableThere(ctx)
	if err != nil {
		return "", err
	}
	if !there {
		return "our table was gone", nil
	}
	print, err := b.fingerprint(ctx)
	if err != nil {
		return "", err
	}
	if b.print == "" {
		b.print = print
	}
	if print != b.print {
		return "our rules were changed", nil
	}
	facts, err := b.quick.holds(ctx, b.own.facts(b.gateway), b.own.factSets())
	if err != nil {
		return "", err
	}
	if !facts {
		return "our sets of interfaces and addresses were changed", nil
	}
	return "", nil
}

// auditEntries compares the mappings. It reads without the lock, and compares
// only when nothing was written meanwhile; else it reads again.
func (b *Backend) auditEntries(ctx context.Context) (string, error) {
	for range dumpTries {
		drift, compared, err := b.compareEntries(ctx)
		if compared || err != nil {
			return drift, err
		}
	}
	return "", firewall.ErrChanging
}

func (b *Backend) compareEntries(ctx context.Context) (drift string, compared bool, err error) {
	b.mu.Lock()
	at := b.writes
	b.mu.Unlock()
	held, err := b.Entries(ctx)
	if err != nil && !errors.Is(err, errInconsistent) {
		return "", false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.writes != at {
		return "", b.closed, nil
	}
	if err == nil && firewall.World(held) == firewall.World(b.state.Entries()) {
		whole, err := b.marksIntact(ctx)
		if err != nil {
			return "", false, err
		}
		if whole {
			drift, err = b.auditAccepted(ctx)
			return drift, true, err
		}
	}
	drift = "our mappings were changed"
	return drift, true, b.repair(ctx, drift)
}

// auditAccepted compares the mappings in the owner's tables. A firewall that declares
// our sets itself (etc/nftables.d) and was restarted has left them empty.
func (b *Backend) auditAccepted(ctx context.Context) (string, error) {
	lost := false
	for _, f := range families {
		part := b.accept[f]
		if part == nil {
			continue
		}
		only := acceptedHere{}
		only[f] = part
		held, err := b.quick.holds(ctx, (&target{accept: only}).all(b.state.Entries()), part.mappingSets())
		if err != nil || !held {
			b.accept[f], lost = nil, true
		}
	}
	if !lost {
		return "", nil
	}
	if err := b.restoreAccept(ctx); err != nil {
		return acceptLost, err
	}
	b.repaired++
	return "our mappings in the accept chain's table were changed", nil
}

// repair writes everything anew. The lock is held.
func (b *Backend) repair(ctx context.Context, drift string) error {
	b.cfg.Log.Debug("the kernel did not hold our table, writing it anew", "drift", drift)
	b.look(ctx)
	if err := b.install(ctx, b.state); err != nil {
		return err
	}
	b.repaired++
	return b.installAccept(ctx)
}

func (b *Backend) tableThere(ctx context.Context) (there bool, err error) {
	err = b.quick.do(ctx, func(q *nftables.Conn, _ *netlink.Conn) error {
		tables, err := q.ListTablesOfFamily(nftables.TableFamilyINet)
		there = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == Table })
		return err
	})
	return there, err
}

// fingerprint gives all our rules as the kernel tells them. It is compared only
// with itself: the kernel's form is not quite what we sent.
func (b *Backend) fingerprint(ctx context.Context) (string, error) {
	var out strings.Builder
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	names := slices.Clone(chainNames)
	if b.cfg.Mark != 0 {
		names = append(names, chainMark, chainMarkFlows, chainMarkPins, chainUnmark)
	}
	for _, name := range names {
		rules, err := b.quick.rules(ctx, table, name)
		if err != nil {
			return "", err
		}
		for _, r := range rules {
			out.WriteString(name + " " + r.text() + "\n")
		}
	}
	return out.String(), nil
}

// holds says whether the sets of facts are as written.
func (r *reader) holds(ctx context.Context, facts *elements, sets []*nftables.Set) (bool, error) {
	for _, set := range sets {
		held, err := r.dump(ctx, set.Table.Family, set.Table.Name, set.Name)
		if err != nil {
			return false, err
		}
		want := make(map[string]bool)
		for _, el := range facts.added[set] {
			want[elementText(el.Key, el.Val, el.IntervalEnd)] = true
		}
		for _, el := range held {
			text := elementText(el.key, el.val, el.intervalEnd)
			if !want[text] {
				return false, nil
			}
			delete(want, text)
		}
		if len(want) > 0 {
			return false, nil
		}
	}
	return true, nil
}

func elementText(key, val []byte, end bool) string { return fmt.Sprintf("%x %x %v", key, val, end) }
