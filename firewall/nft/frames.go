package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// FramesTable is the name of the table of Frames; its family is inet.
const FramesTable = "portcullis_frames"

// priorityFrames is behind whatever else looks at a packet for the machine itself,
// so that nobody takes our mark for his own.
const priorityFrames = nftables.ChainPriority(250)

// Where a frame has the last four octets of its source address, and the type of
// interfaces that have such frames (ARPHRD_ETHER).
const (
	offSourceMAC = 8
	typeEther    = 1
)

// Frames keeps a table of its own, whatever the backend, with rules that mark each
// datagram from a LAN to certain UDP ports of the machine with the last four octets
// of its frame's source address. A socket that asks for marks (SO_RCVMARK, Linux
// 5.19) then knows which machine sent it. All octets are inverted, so that a
// packet that no rule has seen (0) is not one of a machine.
//
// Its methods are safe for concurrent use.
type Frames struct {
	ports  []uint16
	reader reader

	mu     sync.Mutex // guards what follows, and all writing to the kernel
	writer writer
	lans   []string // interfaces
	set    *nftables.Set
	print  string // the rules as the kernel tells them; "": not known
	ours   bool   // the table was written
}

// OpenFrames returns Frames for these UDP ports, or why this kernel or this process
// cannot have them. netns is the file descriptor of a network namespace, open until
// Close; 0 is the current one. Nothing stays in the kernel before Follow.
func OpenFrames(ctx context.Context, netns int, ports ...uint16) (*Frames, error) {
	f := &Frames{ports: ports, reader: reader{netns: netns}, writer: writer{netns: netns}}
	err := f.writer.commit(ctx, func(q *nftables.Conn) error {
		err := f.queue(q, FramesTable+"_probe")
		q.DelTable(f.set.Table)
		return err
	})
	if err != nil {
		f.writer.drop()
		return nil, fmt.Errorf("nft: %w", explain(err))
	}
	return f, nil
}

// SenderOf returns the last four octets of the address of who sent a packet with
// this mark, false when no rule of Frames has seen it.
func SenderOf(mark uint32) (octets [4]byte, ok bool) {
	binary.NativeEndian.PutUint32(octets[:], ^mark)
	return octets, mark != 0
}

// Follow makes the rules hold for these interfaces and no other.
func (f *Frames) Follow(ctx context.Context, lans []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.print != "" && slices.Equal(lans, f.lans) {
		return nil
	}
	f.lans = slices.Clone(lans)
	return f.write(ctx)
}

// Audit compares the kernel with what it should hold, writes it anew where it
// differs, and returns what was wrong; "" is nothing.
func (f *Frames) Audit(ctx context.Context) (drift string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	held, err := f.held(ctx)
	switch {
	case err != nil:
		return "", fmt.Errorf("nft audit of %s: %w", FramesTable, explain(err))
	case held:
		return "", nil
	}
	return "the rules that tell who sent a datagram were changed", f.write(ctx)
}

// Close removes the table, if it was written.
func (f *Frames) Close(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.print = ""
	var err error
	if f.ours {
		table := &nftables.Table{Name: FramesTable, Family: nftables.TableFamilyINet}
		err = f.writer.commit(ctx, func(q *nftables.Conn) error {
			q.AddTable(table)
			q.DelTable(table)
			return nil
		})
	}
	f.writer.drop()
	f.reader.close()
	if err != nil {
		return fmt.Errorf("nft: remove %s: %w", FramesTable, explain(err))
	}
	return nil
}

// The methods below are called with the lock held.

// write replaces the table in one transaction. Doing it twice comes to the same,
// so an unknown outcome is none.
func (f *Frames) write(ctx context.Context) error {
	f.print, f.ours = "", true
	queue := func(q *nftables.Conn) error { return f.queue(q, FramesTable) }
	err := f.writer.commit(ctx, queue)
	if errors.Is(err, errUnknown) {
		err = f.writer.commit(ctx, queue)
	}
	if err == nil {
		f.print, err = f.fingerprint(ctx)
	}
	if err != nil {
		return fmt.Errorf("nft: write %s: %w", FramesTable, explain(err))
	}
	return nil
}

func (f *Frames) queue(q *nftables.Conn, name string) error {
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	f.set = &nftables.Set{
		Table: table, ID: 1, Name: "lan_ifaces", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian,
	}
	q.AddTable(table)
	q.DelTable(table)
	q.AddTable(table)
	if err := q.AddSet(f.set, f.elements()); err != nil {
		return err
	}
	b := &chainBuilder{queue: q, table: table}
	chain := b.base("mark_frames", nftables.ChainTypeFilter, nftables.ChainHookInput, priorityFrames)
	for _, p := range f.ports {
		b.rule(chain, "who sent this frame",
			iifname(f.set),
			match{meta(expr.MetaKeyIIFTYPE, reg1), equal(reg1, binaryutil.NativeEndian.PutUint16(typeEther)...)},
			l4proto(unix.IPPROTO_UDP),
			match{port(offDport, reg1), equal(reg1, binaryutil.BigEndian.PutUint16(p)...)},
			match{
				&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: offSourceMAC, Len: 4},
				&expr.Bitwise{
					SourceRegister: reg1, DestRegister: reg1, Len: 4,
					Mask: []byte{255, 255, 255, 255}, Xor: []byte{255, 255, 255, 255},
				},
				&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true},
			})
	}
	return b.err
}

func (f *Frames) elements() []nftables.SetElement {
	var all []nftables.SetElement
	for _, name := range f.lans {
		all = append(all, nftables.SetElement{Key: ifnameKey(name)})
	}
	return all
}

// held reports whether the kernel holds what was written.
func (f *Frames) held(ctx context.Context) (bool, error) {
	if f.print == "" {
		return false, nil
	}
	print, err := f.fingerprint(ctx)
	if err == nil && print == f.print {
		names := &elements{added: map[*nftables.Set][]nftables.SetElement{f.set: f.elements()}}
		var same bool
		same, err = f.reader.holds(ctx, names, []*nftables.Set{f.set})
		if err == nil {
			return same, nil
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, firewall.ErrClosed) {
		err = nil
	}
	return false, err
}

// fingerprint returns the table's flags and rules as the kernel tells them. A flag
// may say that the rules sleep.
func (f *Frames) fingerprint(ctx context.Context) (string, error) {
	table := &nftables.Table{Name: FramesTable, Family: nftables.TableFamilyINet}
	text := ""
	err := f.reader.do(ctx, func(q *nftables.Conn, _ *netlink.Conn) error {
		tables, err := q.ListTablesOfFamily(table.Family)
		for _, t := range tables {
			if t.Name == table.Name {
				text = fmt.Sprintln("flags", t.Flags)
			}
		}
		return err
	})
	if err != nil {
		return "", err
	}
	rules, err := f.reader.rules(ctx, table, "mark_frames")
	for _, r := range rules {
		text += r.text() + "\n"
	}
	return text, err
}
