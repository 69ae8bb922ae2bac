package nft

import (
	"slices"
	"time"

	"context"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// Steal queues the removal of all elements of an entry, by another hand.
func Steal(q *nftables.Conn, e firewall.Entry) {
	(&target{own: newSkeleton(DefaultSize)}).each(e, func(set *nftables.Set, el nftables.SetElement) {
		if err := q.SetDeleteElements(set, []nftables.SetElement{{Key: el.Key, KeyEnd: el.KeyEnd}}); err != nil {
			panic(err)
		}
	})
}

// DisownThreads has Watch take each thread for another program's.
func (b *Backend) DisownThreads() { b.kernel.thread = func(uint32) bool { return false } }

// DisownSocket has Watch hear what the writer does.
func (b *Backend) DisownSocket() { b.kernel.writer.own.writes(0); b.kernel.writer.own = nil }

// Deafen has the kernel's answer to the next change be lost.
func (b *Backend) Deafen() {
	w := &b.kernel.writer
	if err := w.open(); err != nil {
		panic(err)
	}
	none := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	if err := unix.SetsockoptSockFprog(w.socket.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none[0]}); err != nil {
		panic(err)
	}
}

// OldKernel has it be as before Linux 6.12, where an element keeps the end that it was
// given first.
func (b *Backend) OldKernel() { b.kernel.inPlace = false }

// Retimes reports whether an element that is there takes another end.
func (b *Backend) Retimes() bool { return b.kernel.inPlace }

// Reopen has the next change go through another socket.
func (b *Backend) Reopen() { b.kernel.writer.drop() }

// MarksIntact reports whether the sets of the marks hold what is mapped.
func (b *Backend) MarksIntact(ctx context.Context) (bool, error) {
	var whole bool
	var err error
	b.Look(func(s *firewall.State, _ firewall.Facts) {
		whole, err = b.kernel.marksIntact(ctx, slices.Values(s.Entries()))
	})
	return whole, err
}

// AcceptFlows are our sets in the owner's table.
func AcceptFlows() []string { return append(acceptFlowNames.list(), acceptPinNames.list()...) }

// AcceptFlow is the set of the owner's table that an entry's flows are in, and
// their key there.
func AcceptFlow(e firewall.Entry) (set string, key, end []byte) {
	if e.Kind == firewall.Pin {
		el := pinElement(e)
		return newAcceptPart(family6, firewall.Chain{}, DefaultSize).pins.of(e).Name, el.Key, el.KeyEnd
	}
	el := flowElement(e)
	return newAcceptPart(family4, firewall.Chain{}, DefaultSize).flows.of(e).Name, el.Key, el.KeyEnd
}

// Element returns the elements of a hole, each as it is written and as it is read.
func Element(e firewall.Entry) (hole, flow firewall.Entry, ok bool) {
	as := func(el nftables.SetElement) element { return element{key: el.Key, keyEnd: el.KeyEnd, val: el.Val} }
	sk := newSkeleton(DefaultSize)
	if e.Kind == firewall.Pin {
		pin, ok := pinIn(sk.pins.of(e).Name, as(pinElement(e)))
		return pin, pin, ok
	}
	hole, ok1 := holeIn(as(holeElement(e)))
	flow, ok2 := flowIn(sk.flows.of(e).Name, as(flowElement(e)))
	return hole, flow, ok1 && ok2
}

// CommentIn reads a comment from a rule's user data.
func CommentIn(data []byte) string { return commentIn(data) }

// Multiport reads that extension's ports.
func Multiport(info []byte) string {
	cond := anything()
	if !multiport(&cond, info) {
		return "not understood"
	}
	var ports []string
	for _, c := range cond.claims {
		ports = append(ports, fmt.Sprintf("%d-%d", c.low, c.high))
	}
	return strings.Join(ports, " ")
}

// TryFeatures tries each feature alone.
func (b *Backend) TryFeatures(ctx context.Context) map[string]error {
	errs := make(map[string]error)
	for _, f := range features {
		errs[f.name] = b.kernel.try(ctx, f)
	}
	return errs
}

// TryNoSuchFeature tries one that no kernel has.
func (b *Backend) TryNoSuchFeature(ctx context.Context) error {
	return b.kernel.try(ctx, feature{"wishful thinking", "xt_nosuch", func(_ *skeleton, cb *chainBuilder) {
		cb.rule(cb.plain("probe"), "", match{&expr.Match{Name: "nosuch", Info: &xt.Unknown{}}})
	}})
}

// SampleRule is a port forward as the kernel tells it, with something of
// everything that is read.
func SampleRule() []byte {
	exprs := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Register: 1, Data: ifnameKey("wan0")},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{6}},
		port(offDport, r0), &expr.Range{Register: r0, FromData: []byte{0, 80}, ToData: []byte{0, 90}},
		port(offDport, r0), &expr.Lookup{SourceRegister: r0, SetName: "x"},
		port(offDport, r0), &expr.Lookup{SourceRegister: r0, SetName: "x", IsDestRegSet: true},
		&expr.Match{Name: "tcp", Info: &xt.Tcp{DstPorts: [2]uint16{0, 65535}}},
		&expr.Match{Name: "multiport", Rev: 1, Info: &xt.Unknown{1, 1}},
		addr(offDaddr, reg1), &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: make([]byte, 4), Xor: make([]byte, 4)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}, &expr.Redir{},
		&expr.Target{Name: "DNAT", Rev: 2, Info: &xt.Unknown{}}, &expr.Verdict{Kind: expr.VerdictJump, Chain: "x"},
	}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.NFTA_RULE_USERDATA, comment("sample"))
	ae.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
		for _, e := range exprs {
			data, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil {
				panic(err)
			}
			list.Bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data)
		}
		return nil
	})
	attrs, err := ae.Encode()
	if err != nil {
		panic(err)
	}
	return attrs
}

// SampleElements are the elements of two sets as the kernel tells them.
func SampleElements() []byte {
	return getElements(nftables.TableFamilyINet, "t", "s", [][]byte{{0, 80, 0, 0}, {6, 0, 0, 0, 0, 80, 0, 0}}, 0).Data[4:]
}

// ReadForeign reads a rule, its sets filled with the elements, and gives what it
// claims.
func ReadForeign(rule, elements []byte) (claims []string) {
	header := make([]byte, 4)
	var members []element
	if err := eachElement(netlink.Message{Data: append(header, elements...)}, func(el element) { members = append(members, el) }); err != nil {
		members = nil
	}
	r, err := decodeRule(netlink.Message{Data: append(header, rule...)})
	if err != nil {
		return nil
	}
	s := &foreignScan{wan: []string{"wan0"}, wanAddrs: [][]byte{{203, 0, 113, 5}}}
	cond := anything()
	var now loaded
	for _, raw := range r.exprs {
		switch e := raw.read(nftables.TableFamilyINet).(type) {
		case nil:
			now = loaded{}
		case *expr.Lookup:
			s.narrow(&cond, now.fields, spans(members))
		case *expr.Verdict:
			_ = targetOf(e)
		default:
			s.condition(e, &now, &cond)
		}
	}
	for _, m := range members {
		_ = targetOf(verdictOf(m.val))
		_, _ = holeIn(m)
		for _, set := range ownFlowNames.list() {
			_, _ = flowIn(set, m)
		}
		for _, set := range ownPinNames.list() {
			_, _ = pinIn(set, m)
		}
	}
	for _, c := range cond.claims {
		if c.low <= c.high && c.transports != 0 {
			claims = append(claims, fmt.Sprint(c))
		} else {
			claims = append(claims, "")
		}
	}
	return claims
}

// ListPatience bounds each wait for a message of a list.
func (b *Backend) ListPatience(d time.Duration) { b.kernel.reader.patience = d }

// Age makes all that Frames remembers older, and its next look at the kernel fresh.
func (f *Frames) Age(by time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checked = time.Time{}
	f.recent.forget()
	last := f.since.Load()
	older := &since{table: last.table.Add(-by), known: make(map[[6]byte]time.Time)}
	for mac, began := range last.known {
		older.known[mac] = began.Add(-by)
	}
	f.since.Store(older)
}
