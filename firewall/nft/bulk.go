package nft

import (
	"context"
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// bulk writes any number of elements of sets that are there, in as many transactions as it
// takes. It makes the messages where they are sent from: the library's have each attribute in
// memory of its own, which for tens of thousands of mappings took longer than the kernel does
// to take them in.
type bulk struct {
	ctx    context.Context // of the one call of fill
	w      *writer
	begun  []begun // messages, one of each set
	batch  []byte  // complete ones, in a transaction that is not sent yet
	last   int     // where the last of them begins
	queued int     // how many they are
	err    error   // the first
}

// begun is a message to which elements can be added.
type begun struct {
	set      *nftables.Set
	octets   []byte
	list     int // where the list of elements begins
	elements int
}

// add takes an element, and sends when there is enough. After an error it does nothing.
func (b *bulk) add(set *nftables.Set, el nftables.SetElement) {
	if b.err != nil {
		return
	}
	i := 0
	for i < len(b.begun) && b.begun[i].set != set {
		i++
	}
	if i == len(b.begun) {
		b.begun = append(b.begun, begun{set: set})
	}
	m := &b.begun[i]
	if m.elements == 0 {
		m.begin()
	}
	m.octets = appendElement(m.octets, &el)
	if m.elements++; m.elements == elementsPerMessage {
		b.end(m)
	}
}

// flush sends what is left.
func (b *bulk) flush() error {
	for i := range b.begun {
		if m := &b.begun[i]; m.elements > 0 && b.err == nil {
			b.end(m)
		}
	}
	b.send()
	return b.err
}

// end completes a message and puts it into the transaction.
func (b *bulk) end(m *begun) {
	endAttribute(m.octets, m.list, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	if b.queued >= maxMessages || len(b.batch)+len(m.octets) > b.w.budget {
		b.send()
	}
	if b.err != nil { // what is sent now would hide it
		return
	}
	b.queue(netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM), netlink.Request|netlink.Create, m.octets)
	m.octets, m.elements = m.octets[:0], 0
	b.queued++
}

// queue appends a message, in front of which the transaction begins.
func (b *bulk) queue(t netlink.HeaderType, flags netlink.HeaderFlags, data []byte) {
	if b.err = b.w.open(); b.err != nil {
		return
	}
	if len(b.batch) == 0 {
		b.append(batchMessage(unix.NFNL_MSG_BATCH_BEGIN))
	}
	b.last = len(b.batch)
	b.append(netlink.Message{Header: netlink.Header{Type: t, Flags: flags}, Data: data})
}

func (b *bulk) append(m netlink.Message) {
	b.w.socket.seq++
	m.Header.Sequence = b.w.socket.seq
	b.batch = appendMessage(b.batch, m, m.Header.Flags)
}

// send makes the transaction of what is queued. The last message asks for the kernel's answer.
func (b *bulk) send() {
	if b.queued == 0 || b.err != nil {
		return
	}
	if b.err = b.ctx.Err(); b.err != nil {
		return
	}
	const flags = 6 // nlmsg_flags, in the header
	asked := binary.NativeEndian.Uint16(b.batch[b.last+flags:]) | uint16(netlink.Acknowledge)
	binary.NativeEndian.PutUint16(b.batch[b.last+flags:], asked)
	about := b.w.socket.seq
	b.append(batchMessage(unix.NFNL_MSG_BATCH_END))
	b.err = b.w.outcome(b.w.socket.sendAll(b.batch, about))
	b.batch, b.queued = b.batch[:0], 0
}

// begin begins the message anew, in the same memory.
func (m *begun) begin() {
	m.octets = append(m.octets[:0], byte(m.set.Table.Family), unix.NFNETLINK_V0, 0, 0)
	m.octets = appendText(m.octets, unix.NFTA_SET_ELEM_LIST_TABLE, m.set.Table.Name)
	m.octets = appendText(m.octets, unix.NFTA_SET_ELEM_LIST_SET, m.set.Name)
	m.list = len(m.octets)
	m.octets = beginAttribute(m.octets)
}

func appendElement(b []byte, el *nftables.SetElement) []byte {
	at := len(b)
	b = appendValue(beginAttribute(b), unix.NFTA_SET_ELEM_KEY, el.Key)
	if len(el.KeyEnd) > 0 {
		b = appendValue(b, nftables.NFTA_SET_ELEM_KEY_END, el.KeyEnd)
	}
	if len(el.Val) > 0 {
		b = appendValue(b, unix.NFTA_SET_ELEM_DATA, el.Val)
	}
	if el.Timeout != 0 {
		timeout := len(b)
		b = binary.BigEndian.AppendUint64(beginAttribute(b), uint64(el.Timeout.Milliseconds())) // #nosec G115 -- not negative
		endAttribute(b, timeout, unix.NFTA_SET_ELEM_TIMEOUT)
	}
	endAttribute(b, at, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM)
	return b
}

// appendValue appends a key, or what is under it.
func appendValue(b []byte, kind int, data []byte) []byte {
	at := len(b)
	b = beginAttribute(b)
	value := len(b)
	b = append(beginAttribute(b), data...)
	b = padded(endAttribute(b, value, unix.NFTA_DATA_VALUE))
	return endAttribute(b, at, unix.NLA_F_NESTED|kind)
}

func appendText(b []byte, kind int, text string) []byte {
	at := len(b)
	b = append(append(beginAttribute(b), text...), 0)
	return padded(endAttribute(b, at, kind))
}

// beginAttribute leaves room for the header of an attribute (netlink(7)), which endAttribute
// writes when its length is known. Both are in the machine's order.
func beginAttribute(b []byte) []byte { return append(b, 0, 0, 0, 0) }

func endAttribute(b []byte, at, kind int) []byte {
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at)) // #nosec G115 -- elementsPerMessage
	binary.NativeEndian.PutUint16(b[at+2:], uint16(kind))    // #nosec G115 -- of the kernel's own
	return b
}

func padded(b []byte) []byte {
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}
