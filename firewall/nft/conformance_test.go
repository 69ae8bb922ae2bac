package nft_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/firewall/fwtest"
	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
)

func TestConformance(t *testing.T) {
	fwtest.Conformance(t, func(t *testing.T, capacity int) fwtest.Subject { return subject(t, capacity, 0, "") })
}

// The same with mappings kept in the owner's table as well, buffers so small that a state
// of any size goes in many transactions, and elements that keep their first end.
func TestConformanceInParts(t *testing.T) {
	fwtest.Conformance(t, func(t *testing.T, capacity int) fwtest.Subject {
		s := subject(t, capacity, 24<<10, "inet fw4 forward")
		s.Firewall.(*nft.Backend).OldKernel()
		return s
	})
}

// The same with packets that are marked: what is looked up for that is what is mapped.
func TestConformanceMarked(t *testing.T) {
	t.Parallel()
	fwtest.Conformance(t, func(t *testing.T, capacity int) fwtest.Subject {
		s := subject(t, capacity, 40<<10, "", func(c *nft.Config) { c.Mark = 0x100 })
		b, held := s.Firewall.(*nft.Backend), s.Held
		s.Held = func(t *testing.T) []firewall.Entry {
			t.Helper()
			all := held(t) // for which the kernel is told of every lease
			if whole, err := b.MarksIntact(ctx(t)); !whole || err != nil {
				t.Errorf("the sets of the marks hold what is mapped: %v, %v", whole, err)
			}
			return all
		}
		return s
	}, 1, 129)
}

func subject(t *testing.T, capacity, buffer int, acceptChain string, change ...func(*nft.Config)) fwtest.Subject {
	n := netnstest.New(t, "gw")
	if acceptChain != "" {
		ownersFirewall(t, n)
	}
	b := open(t, n, append(change, func(c *nft.Config) {
		c.Size, c.Buffer, c.Log = capacity, buffer, quiet()
	})...)
	g := homenet.Facts()
	g.AcceptChain = chain(acceptChain)
	if err := b.Configure(ctx(t), g); err != nil {
		t.Fatal(err)
	}
	return fwtest.Subject{
		Firewall: b,
		Held: func(t *testing.T) []firewall.Entry {
			t.Helper()
			held, err := b.Entries(ctx(t))
			if err != nil {
				t.Fatal(err)
			}
			if acceptChain != "" {
				sameInOwnersTable(t, n, held)
			}
			return held
		},
		Wipe: func(t *testing.T) {
			foreign(t, n, func(q *nftables.Conn) { q.FlushRuleset() })
			if acceptChain != "" {
				ownersFirewall(t, n)
			}
		},
		Steal: func(t *testing.T, e firewall.Entry) {
			foreign(t, n, func(q *nftables.Conn) { nft.Steal(q, e) })
		},
		Blind: func(ctx context.Context) context.Context {
			b.Deafen()
			return ctx
		},
	}
}

// foreign is somebody else at work on the ruleset.
func foreign(t testing.TB, n *netnstest.Space, work func(*nftables.Conn)) {
	t.Helper()
	q, err := nftables.New(nftables.WithNetNSFd(n.FD()))
	if err != nil {
		t.Fatal(err)
	}
	work(q)
	if err := q.Flush(); err != nil {
		t.Fatal(err)
	}
}

// ownersFirewall is the shape of a fw4 ruleset: a forward chain that drops what
// it does not know.
func ownersFirewall(t testing.TB, n *netnstest.Space) {
	t.Helper()
	foreign(t, n, func(q *nftables.Conn) {
		drop := nftables.ChainPolicyDrop
		table := q.AddTable(&nftables.Table{Name: "fw4", Family: nftables.TableFamilyINet})
		q.AddChain(&nftables.Chain{
			Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityFilter, Policy: &drop,
		})
	})
}

// sameInOwnersTable compares the holes with the flows the owner's table lets
// pass.
func sameInOwnersTable(t *testing.T, n *netnstest.Space, held []firewall.Entry) {
	t.Helper()
	want := make(map[string]bool)
	for _, e := range held {
		if e.Kind == firewall.Hole || e.Kind == firewall.Pin {
			set, key, end := nft.AcceptFlow(e)
			want[fmt.Sprintf("%s %x-%x", set, key, end)] = true
		}
	}
	q, err := nftables.New(nftables.WithNetNSFd(n.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "fw4", Family: nftables.TableFamilyINet}
	got := 0
	for _, name := range nft.AcceptFlows() {
		elements, err := q.GetSetElements(&nftables.Set{Table: table, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		for _, el := range elements {
			flow := fmt.Sprintf("%s %x-%x", name, el.Key, el.KeyEnd)
			if got++; !want[flow] {
				t.Errorf("the owner's table lets %s pass, which is not mapped", flow)
			}
		}
	}
	if got != len(want) {
		t.Errorf("the owner's table lets %d flows pass, want %d", got, len(want))
	}
}
