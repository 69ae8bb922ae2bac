package nft

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// leases collects the elements of a change that gives mappings another end and nothing
// else.
func (t *target) leases(c *firewall.Delta) *elements {
	e := newElements()
	for _, entry := range c.Retime {
		t.each(entry, e.add)
	}
	return e
}

// expirySize is what an element takes more where its end is told beside its timeout.
const expirySize = 12

// retime gives elements that are there another end, in one transaction. They stay what
// they are and go on counting. One that is not there is made.
func (w *writer) retime(ctx context.Context, ops []elementOp) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.open(); err != nil {
		return err
	}
	batch := make([]netlink.Message, 0, len(ops)+2)
	batch = append(batch, batchMessage(unix.NFNL_MSG_BATCH_BEGIN))
	for _, op := range ops {
		m, err := op.timed()
		if err != nil {
			return err
		}
		batch = append(batch, m)
	}
	batch = append(batch, batchMessage(unix.NFNL_MSG_BATCH_END))
	for i := range batch {
		w.socket.seq++
		batch[i].Header.Sequence = w.socket.seq
	}
	_, err := w.socket.run(batch)
	return w.outcome(err)
}

// batchMessage begins or ends a transaction.
func batchMessage(kind int) netlink.Message {
	const version = unix.NFNETLINK_V0
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   []byte{0, version, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

// timed builds the message that gives elements their end. The library's has their timeout
// alone, and a kernel that has the same timeout for an element leaves its end as it was.
func (op elementOp) timed() (netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, op.set.Table.Name)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, op.set.Name)
	value := func(data []byte) func(*netlink.AttributeEncoder) error {
		return func(v *netlink.AttributeEncoder) error {
			v.Bytes(unix.NFTA_DATA_VALUE, data)
			return nil
		}
	}
	ae.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		for _, el := range op.elements {
			list.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
				e.Nested(unix.NFTA_SET_ELEM_KEY, value(el.Key))
				if len(el.KeyEnd) > 0 {
					e.Nested(nftables.NFTA_SET_ELEM_KEY_END, value(el.KeyEnd))
				}
				if len(el.Val) > 0 {
					e.Nested(unix.NFTA_SET_ELEM_DATA, value(el.Val))
				}
				e.Uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(el.Timeout.Milliseconds()))
				e.Uint64(unix.NFTA_SET_ELEM_EXPIRATION, uint64(cmp.Or(el.Expires, el.Timeout).Milliseconds()))
				return nil
			})
		}
		return nil
	})
	attrs, err := ae.Encode()
	return message(unix.NFT_MSG_NEWSETELEM, netlink.Create, op.set.Table.Family, attrs), err
}

// retimes tries whether the kernel gives an element that is there another end, in sets
// of each sort that mappings are in: Linux 6.12 does, older ones accept it and change
// nothing.
func (k *kernel) retimes(ctx context.Context) (does bool) {
	table := &nftables.Table{Name: Table + "_probe", Family: nftables.TableFamilyINet}
	plain := &nftables.Set{
		Table: table, ID: 1, Name: "plain", HasTimeout: true, IsMap: true, KeyByteOrder: binaryutil.BigEndian,
		KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
	ranges := &nftables.Set{
		Table: table, ID: 2, Name: "ranges", HasTimeout: true, Interval: true, Concatenation: true, KeyByteOrder: binaryutil.BigEndian,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
	const short, long = time.Hour, 2 * time.Hour
	ops := func(left time.Duration) []elementOp { // of the same timeout, which is the harder case
		return []elementOp{
			{set: plain, elements: []nftables.SetElement{{
				Key: []byte{6, 0, 0, 0, 0, 80, 0, 0}, Val: []byte{192, 0, 2, 1, 0, 80, 0, 0}, Timeout: long, Expires: left,
			}}},
			{set: ranges, elements: []nftables.SetElement{{
				Key: []byte{203, 0, 113, 0, 0, 80, 0, 0}, KeyEnd: []byte{203, 0, 113, 255, 0, 80, 0, 0}, Timeout: long, Expires: left,
			}}},
		}
	}
	err := k.writer.commit(ctx, func(q *nftables.Conn) error {
		q.AddTable(table)
		q.DelTable(table) // what a run that was killed has left
		q.AddTable(table)
		return errors.Join(q.AddSet(plain, nil), q.AddSet(ranges, nil))
	})
	if err != nil {
		return false
	}
	defer func() {
		err := k.writer.commit(context.WithoutCancel(ctx), func(q *nftables.Conn) error {
			q.DelTable(table)
			return nil
		})
		if err != nil {
			k.cfg.Log.Warn("a table for a test of the kernel is left", "table", table.Name, "err", err)
		}
	}()
	for _, left := range []time.Duration{short, long} {
		if err := k.writer.retime(ctx, ops(left)); err != nil {
			return false
		}
	}
	for _, op := range ops(long) {
		got, err := k.quick.get(ctx, op.set, [][]byte{op.elements[0].Key})
		if err != nil || len(got) != 1 || got[0].left <= short {
			return false
		}
	}
	return true
}
