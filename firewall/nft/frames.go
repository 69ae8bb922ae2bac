package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/internal/frames"
)

// FramesTable is the name of the table of Frames; its family is inet.
const FramesTable = "portcullis_frames"

// priorityFrames is behind whatever else looks at a packet for the machine itself,
// so that nobody takes our mark for his own.
const priorityFrames = nftables.ChainPriority(250)

// Where a frame has its source address and the last four octets of it, and the type
// of interfaces that have such frames (ARPHRD_ETHER).
const (
	offSourceMAC = 6
	offMACEnding = 8
	typeEther    = 1
)

// MaxKnown is how many machines Know takes.
const MaxKnown = 4096

const (
	maxMachines   = 4096             // remembered for what they send
	machineMemory = 10 * time.Minute // and how long
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
	web    uint16 // of TCP; 0: none
	most   uint64 // datagrams a second of one machine, and at once; 0: no limit
	reader reader
	quick  reader // for what a request waits for
	askers askers
	recent heard
	since  atomic.Pointer[since] // nil: nothing is remembered

	mu     sync.Mutex // guards what follows, and all writing to the kernel
	writer writer
	lans   []string // interfaces
	heard  [][6]byte
	set    *nftables.Set
	known  *nftables.Set
	print  string // the rules as the kernel tells them; "": not known
	ours   bool   // the table was written

	checked time.Time // when the rules were looked at last for Silent
	intact  bool      // and how they were
}

// OpenFrames returns Frames for these UDP ports and, to remember who sends there, one of
// TCP (0: none), or why this kernel or this process cannot have them. Beyond most datagrams a second (0: no limit) what a machine sends
// has the frames.FloodMark; and so has what all machines send together that are not known by
// Know and have not sent before, so that one that invents addresses is only in the way
// of such. netns is
// the file descriptor of a network namespace, open until Close; 0 is the current one.
// Nothing stays in the kernel before Follow.
func OpenFrames(ctx context.Context, netns int, most uint64, web uint16, ports ...uint16) (*Frames, error) {
	f := &Frames{
		ports: ports, web: web, most: most, reader: reader{netns: netns}, quick: reader{netns: netns}, writer: writer{netns: netns},
	}
	probe := func(q *nftables.Conn) error {
		err := f.queue(q, FramesTable+"_probe")
		q.DelTable(f.set.Table)
		return err
	}
	err := f.writer.commit(ctx, probe)
	if errors.Is(err, unix.ENOENT) && f.most > 0 {
		f.most = 0 // a kernel without nft_limit
		err = f.writer.commit(ctx, probe)
	}
	if err != nil {
		f.writer.drop()
		return nil, fmt.Errorf("nft: %w", explain(err))
	}
	return f, nil
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

// Know makes these machines, and no other, have a limit of their own, whatever the
// others send: those that have answered the gateway, which what is invented has not.
// Beyond MaxKnown they are left out, and are as new ones.
func (f *Frames) Know(ctx context.Context, macs [][6]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = macs[:min(len(macs), MaxKnown)]
	if f.print == "" {
		return nil
	}
	err := f.writer.commit(ctx, func(q *nftables.Conn) error {
		q.FlushSet(f.known)
		return f.addKnown(q)
	})
	if err != nil && !errors.Is(err, unix.ENOENT) { // what others took away, Audit writes anew
		return fmt.Errorf("nft: write the machines of %s: %w", FramesTable, explain(err))
	}
	if last := f.since.Load(); last != nil {
		f.remembered(last.table)
	}
	return nil
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
	f.quick.close()
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
	f.since.Store(nil)
	queue := func(q *nftables.Conn) error { return f.queue(q, FramesTable) }
	err := f.writer.commit(ctx, queue)
	if errors.Is(err, firewall.ErrUnknown) {
		err = f.writer.commit(ctx, queue)
	}
	if err == nil {
		f.remembered(time.Now())
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
	f.known = &nftables.Set{
		Table: table, ID: 2, Name: "known", KeyType: nftables.TypeEtherAddr, KeyByteOrder: binaryutil.BigEndian,
		Size: MaxKnown, // one that grows shows elements twice meanwhile
	}
	if err := errors.Join(q.AddSet(f.known, nil), f.addKnown(q), f.askers.queueSets(q, table)); err != nil {
		return err
	}
	b := &chainBuilder{queue: q, table: table}
	chain := b.base("mark_frames", nftables.ChainTypeFilter, nftables.ChainHookInput, priorityFrames)
	each, asks, web := b.plain("mark_frame"), b.plain("remember_asker"), b.plain("remember_web_asker")
	for _, p := range f.ports {
		b.rule(chain, "what a LAN sends to us",
			iifname(f.set), fromEther(), l4proto(unix.IPPROTO_UDP),
			match{port(offDport, reg1), equal(reg1, binaryutil.BigEndian.PutUint16(p)...)},
			jump(each))
	}
	if f.web != 0 {
		b.rule(chain, "and by TCP", iifname(f.set), fromEther(), l4proto(unix.IPPROTO_TCP),
			match{port(offDport, reg1), equal(reg1, binaryutil.BigEndian.PutUint16(f.web)...)},
			jump(web))
	}
	f.askers.rememberWeb(b, web, asks)
	f.askers.remember(b, asks, f.known)
	if err := f.limit(b, each); err != nil {
		return err
	}
	b.rule(each, "it is remembered", jump(asks))
	b.rule(each, "who sent this frame", fromEther(), match{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: offMACEnding, Len: 4},
		&expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: []byte{255, 255, 255, 255}, Xor: []byte{255, 255, 255, 255},
		},
		frameMark(),
	})
	return b.err
}

// limit queues the rules for what is too much.
func (f *Frames) limit(b *chainBuilder, each *nftables.Chain) error {
	if f.most == 0 {
		return nil
	}
	machines := &nftables.Set{
		Table: b.table, ID: 3, Name: "machines", KeyType: nftables.TypeEtherAddr, KeyByteOrder: binaryutil.BigEndian,
		Dynamic: true, HasTimeout: true, Timeout: machineMemory, Size: maxMachines,
	}
	if err := b.queue.AddSet(machines, nil); err != nil {
		return err
	}
	source := match{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: offSourceMAC, Len: 6}}
	over := &expr.Limit{
		Type: expr.LimitTypePkts, Rate: f.most, Over: true, Unit: expr.LimitTimeSecond, Burst: uint32(f.most),
	}
	flood := match{
		&expr.Immediate{Register: reg1, Data: binaryutil.NativeEndian.PutUint32(frames.FloodMark)}, frameMark(),
		&expr.Verdict{Kind: expr.VerdictReturn},
	}
	notIn := func(s *nftables.Set) expr.Any {
		return &expr.Lookup{SourceRegister: reg1, SetName: s.Name, SetID: s.ID, Invert: true}
	}
	b.rule(each, "too much of machines that are new", fromEther(), source,
		match{notIn(f.known)}, source, match{notIn(machines), over}, flood)
	b.rule(each, "too much of one machine", fromEther(), source,
		match{&expr.Dynset{
			SrcRegKey: reg1, SetName: machines.Name, SetID: machines.ID, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE),
			Timeout: machineMemory, Exprs: []expr.Any{over},
		}}, flood)
	return nil
}

// addKnown queues the machines that are known, so many in a message as it has room for.
func (f *Frames) addKnown(q *nftables.Conn) error {
	for some := range slices.Chunk(f.knownElements(), 1000) {
		if err := q.SetAddElements(f.known, some); err != nil {
			return err
		}
	}
	return nil
}

func (f *Frames) knownElements() []nftables.SetElement {
	all := make([]nftables.SetElement, len(f.heard))
	for i := range f.heard {
		all[i].Key = f.heard[i][:]
	}
	return all
}

func fromEther() match {
	return match{meta(expr.MetaKeyIIFTYPE, reg1), equal(reg1, binaryutil.NativeEndian.PutUint16(typeEther)...)}
}

func frameMark() expr.Any {
	return &expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true}
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
		want := map[*nftables.Set][]nftables.SetElement{f.set: f.elements(), f.known: f.knownElements()}
		var same bool
		same, err = f.reader.holds(ctx, &elements{added: want}, []*nftables.Set{f.set, f.known})
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
	for _, chain := range []string{"mark_frames", "mark_frame", "remember_asker", "remember_web_asker"} {
		rules, err := f.reader.rules(ctx, table, chain)
		if err != nil {
			return "", err
		}
		for _, r := range rules {
			text += r.text() + "\n"
		}
	}
	return text, nil
}
