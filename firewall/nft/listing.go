package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// What is listed in a chain of the owner's.
//
// The page of OpenWrt (luci-app-upnp) shows what `nft list chain inet fw4 upnp_prerouting`
// prints, where a line has the form of miniupnpd's rules: an interface by its index, the
// protocol by its octet in the header, and nothing between the port and the destination. So
// rules of that form stand there, one for each mapping, and each asks for an interface that
// cannot be: the kernel refuses a name with a slash. No packet reaches them either: the first
// rule of the chain lets every packet return. What translates is our own table.
//
// Therefore these rules may be late, or stay when the daemon dies, and open nothing, whatever
// leads to the chain, and whoever takes a rule out of it.

// listingMark is the comment of the first rule.
const listingMark = "portcullis: what follows is only shown; no packet gets past this rule"

// listingBatch is how many rules a transaction has.
const listingBatch = 100

// loopback is the index of an interface that every network has.
const loopback = 1

// Listing is such a chain. Its methods are safe for concurrent use.
type Listing struct {
	log   *slog.Logger
	chain firewall.Chain
	table *nftables.Table

	mu     sync.Mutex // guards what follows
	reader reader
	writer writer
	rows   []row
	shown  bool   // Show was called
	wrong  string // what the log has been told last
}

// row is a rule of it.
type row struct {
	ifindex uint32
	proto   byte
	port    uint16
	to      netip.AddrPort
}

// NewListing returns a listing of a chain of family inet or ip, in a network namespace, by
// its file descriptor; 0: the current one. Close must be called.
func NewListing(log *slog.Logger, netns int, chain firewall.Chain) *Listing {
	return &Listing{log: log, chain: chain, table: tableOf(chain), reader: reader{netns: netns}, writer: writer{netns: netns}}
}

// Show makes the rules be those of mappings of IPv4, in their order, on the interface with
// this index; 0: it is not there now. What keeps it from doing so is logged, and tried again
// by Audit.
func (l *Listing) Show(ctx context.Context, ifindex int, all []portmap.Mapping) {
	if ifindex <= 0 {
		ifindex = loopback
	}
	rows := make([]row, len(all))
	for i := range all {
		m := &all[i]
		rows[i] = row{uint32(ifindex), byte(m.Transport), m.ExternalPort, m.Internal} // #nosec G115 -- the kernel's are
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows, l.shown = rows, true
	l.say(ctx, l.bring(ctx))
}

// Audit puts the rules back that another program has removed, as a reload of the owner's
// firewall does. That is no drift of anything that counts.
func (l *Listing) Audit(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown {
		l.say(ctx, l.bring(ctx))
	}
}

// Close removes the rules, and the chain if nothing leads there; or, with keep, leaves all.
func (l *Listing) Close(ctx context.Context, keep bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.writer.drop()
	defer l.reader.close()
	shown := l.shown
	l.shown = false // for an Audit that comes late, also where all stays
	if keep || !shown {
		return nil
	}
	have, err := l.read(ctx)
	if err != nil || have == nil {
		if err != nil && !errors.Is(err, errForeign) {
			return fmt.Errorf("nft: leaving %q: %w", l.chain, explain(err))
		}
		return nil
	}
	if err = l.writer.commit(ctx, l.clear(true)); errors.Is(err, unix.EBUSY) { // somebody's rule leads there
		err = l.writer.commit(ctx, l.clear(false))
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nft: leaving %q: %w", l.chain, explain(err))
	}
	return nil
}

// The methods below are called with the lock held.

func (l *Listing) clear(whole bool) func(*nftables.Conn) error {
	return func(q *nftables.Conn) error {
		c := &nftables.Chain{Name: l.chain.Name, Table: l.table}
		if q.FlushChain(c); whole {
			q.DelChain(c)
		}
		return nil
	}
}

// errForeign means that the chain has rules of another program.
var errForeign = errors.New("the chain has rules of another program")

// read returns the rules that are there, nil where the chain is empty or missing. A rule
// that is not of our form is a row like no other.
func (l *Listing) read(ctx context.Context) ([]there, error) {
	rules, err := l.reader.rules(ctx, l.table, l.chain.Name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil || len(rules) == 0:
		return nil, err
	}
	first, rows := listedRules(rules, l.table.Family)
	switch {
	case rows == nil:
		return nil, errForeign
	case !first: // somebody has removed it
		return []there{{}}, nil
	}
	return rows, nil
}

// there is a row in the kernel; zero: something else.
type there struct {
	row
	handle uint64
}

// listedRules reads the rules of a chain: whether ours is the first, and the rows that follow.
// There are none where the chain is another program's: neither begins with ours, nor has
// nothing but rows.
func listedRules(rules []ruleRead, family nftables.TableFamily) (first bool, rows []there) {
	if len(rules) == 0 {
		return false, nil
	}
	if first = rules[0].comment == listingMark && alwaysEnds(rules[0]); first {
		rules = rules[1:]
	}
	rows = make([]there, len(rules))
	for i, r := range rules {
		if rows[i] = (there{rowOf(r, family), r.handle}); rows[i].row == (row{}) && !first {
			return false, nil
		}
	}
	return first, rows
}

// bring makes the chain be as it should, and touches no rule that may stay: of thousands of
// mappings one ends or comes each moment.
func (l *Listing) bring(ctx context.Context) error {
	have, err := l.read(ctx)
	if err != nil {
		return err
	}
	gone, kept := surplus(have, l.rows)
	if have == nil || len(gone) == len(have) && len(have) > 0 {
		gone, kept = nil, 0
		if err := l.writer.commit(ctx, l.begin); err != nil {
			return err
		}
	}
	more := l.rows[kept:]
	for from := 0; from < len(gone)+len(more); from += listingBatch {
		to := min(from+listingBatch, len(gone)+len(more))
		err := l.writer.commit(ctx, func(q *nftables.Conn) error {
			for i := from; i < to; i++ {
				if i >= len(gone) {
					q.AddRule(l.rule(more[i-len(gone)].match()))
				} else if err := q.DelRule(&nftables.Rule{Table: l.table, Chain: l.rule(nil).Chain, Handle: gone[i]}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// surplus returns the handles of the rules without which the first rows are there, in their
// order, and how many these are.
func surplus(have []there, rows []row) (gone []uint64, kept int) {
	for _, h := range have {
		if kept < len(rows) && h.row == rows[kept] {
			kept++
		} else {
			gone = append(gone, h.handle)
		}
	}
	return gone, kept
}

// begin queues the chain with its first rule alone.
func (l *Listing) begin(q *nftables.Conn) error {
	c := q.AddChain(&nftables.Chain{Name: l.chain.Name, Table: l.table})
	q.FlushChain(c)
	first := l.rule(verdict(expr.VerdictReturn, ""))
	first.UserData = comment(listingMark)
	q.AddRule(first)
	return nil
}

func (l *Listing) rule(parts match) *nftables.Rule {
	return &nftables.Rule{Table: l.table, Chain: &nftables.Chain{Name: l.chain.Name, Table: l.table}, Exprs: parts}
}

// match is a row as nft prints it in miniupnpd's form: iif "wan0" iifname "ONLY/SHOWN"
// @nh,72,8 0x6 th dport 80 dnat ip to 192.168.1.20:80. Its own parser has another way to
// write that.
func (r row) match() match {
	to := r.to.Addr().As4()
	return match{
		meta(expr.MetaKeyIIF, reg1), equal(reg1, binaryutil.NativeEndian.PutUint32(r.ifindex)...),
		meta(expr.MetaKeyIIFNAME, reg1), equal(reg1, ifnameKey(firewall.Nowhere)...),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offProto, Len: 1}, equal(reg1, r.proto),
		port(offDport, reg1), equal(reg1, binary.BigEndian.AppendUint16(nil, r.port)...),
		&expr.Immediate{Register: reg1, Data: to[:]},
		&expr.Immediate{Register: reg2, Data: binary.BigEndian.AppendUint16(nil, r.to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg2},
	}
}

// rowOf reads a rule of that form.
func rowOf(r ruleRead, family nftables.TableFamily) row {
	var values [][]byte
	for _, e := range r.exprs {
		switch x := e.read(family).(type) {
		case *expr.Cmp:
			values = append(values, x.Data)
		case *expr.Immediate:
			values = append(values, x.Data)
		}
	}
	sizes := []int{4, unix.IFNAMSIZ, 1, 2, 4, 2}
	if len(r.exprs) != 11 || r.exprs[10].name != "nat" || len(values) != len(sizes) {
		return row{}
	}
	for i, n := range sizes {
		if len(values[i]) != n {
			return row{}
		}
	}
	if !bytes.Equal(values[1], ifnameKey(firewall.Nowhere)) {
		return row{}
	}
	addr, _ := netip.AddrFromSlice(values[4])
	return row{
		binaryutil.NativeEndian.Uint32(values[0]), values[2][0], binary.BigEndian.Uint16(values[3]),
		netip.AddrPortFrom(addr, binary.BigEndian.Uint16(values[5])),
	}
}

// say logs what is wrong, once.
func (l *Listing) say(ctx context.Context, err error) {
	was := l.wrong
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		l.wrong = ""
	case errors.Is(err, errForeign):
		l.wrong = fmt.Sprintf("%v; when that is gone, clear it: nft flush chain %s", errForeign, l.chain)
	case errors.Is(err, unix.ENOENT):
		l.wrong = fmt.Sprintf("there is no table %s %s", l.chain.Family, l.chain.Table)
	default:
		l.wrong = explain(err).Error()
	}
	switch {
	case l.wrong == was:
	case l.wrong == "":
		l.log.Info("mappings are listed in miniupnpd.chain again", "chain", l.chain.String())
	default:
		l.log.Warn("mappings are not listed in miniupnpd.chain", "chain", l.chain.String(), "why", l.wrong)
	}
}
