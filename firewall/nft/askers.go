package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Frames also remembers which machines have sent to our ports lately, so that whoever
// decides can ask the kernel whether a host has asked at all, and need not believe the
// process that reads what it says.
//
// A machine is remembered with the interface by which its frame came in, a bridge and not
// its port: what is sent on one LAN says nothing of a host of another, where two networks
// use the same addresses or somebody writes frames with another LAN's MAC addresses. Who
// moves to another LAN is seen there by its first packet. The interface is its index, which
// no other has after it and takes a quarter of a name's octets.
//
// Machines that have answered the gateway (Know) have a set of their own, which holds all
// of them. What is invented is in another one. When that is full the kernel notes it, and
// for as long as that note lasts it is not certain of a machine that is new whether it
// has sent; it stays certain of the others. Known ones can be on several LANs: the set has
// room for all of them twice, so that one LAN on which all are forged leaves the others
// theirs. Beyond that nobody is certain to be silent.
//
// Of TCP the address of the host is remembered as well: one whose frames have another MAC
// address than it answers ARP with (bonding, two interfaces on one network) is served by
// UPnP. Who can write a frame with another's address can write one with its MAC address.
const (
	// askerMemory is how long a machine is remembered. A request may be so old when it is
	// decided: it has waited in a socket, for its neighbour entry, and for its turn.
	askerMemory = 15 * time.Second
	maxNew      = 4096         // askers that are not known: so many datagrams of such pass in 15 seconds and more
	maxAskers   = 2 * MaxKnown // of those that are

	// recheck is how old the last look at the rules may be when it is said that a machine
	// has been silent.
	recheck = time.Second

	// believed is how long the kernel's word that a machine has sent is enough: who asks
	// for many ports is asked about once. maxBelieved are remembered.
	believed    = 2 * time.Second
	maxBelieved = 1024
)

// asker is a machine on a LAN.
type asker struct {
	ifindex int
	mac     [6]byte
}

// heard are the machines that the kernel said a moment ago have sent. It is safe for
// concurrent use.
type heard struct {
	mu sync.Mutex
	at map[asker]time.Time // guarded by mu
}

func (h *heard) note(a asker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil || len(h.at) >= maxBelieved {
		h.at = make(map[asker]time.Time)
	}
	h.at[a] = time.Now()
}

func (h *heard) justNow(a asker) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, noted := h.at[a]
	return noted && time.Since(at) < believed
}

func (h *heard) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = nil
}

// askers is what the kernel remembers of who sent.
type askers struct {
	known, fresh *nftables.Set // by interface and MAC address
	full         *nftables.Set // by protocol: fresh had no room
	fullKnown    *nftables.Set // by protocol: neither had, for one that is known
	web, web6    *nftables.Set // by interface and the address of who sent by TCP
}

// since is when what the kernel remembers began: the whole table, and each machine in the
// set of those that are known. It is a value.
type since struct {
	table time.Time
	known map[[6]byte]time.Time
}

// queueSets queues the sets.
func (a *askers) queueSets(q *nftables.Conn, table *nftables.Table) error {
	set := func(id uint32, name string, key nftables.SetDatatype, size uint32) *nftables.Set {
		return &nftables.Set{
			Table: table, ID: id, Name: name, KeyType: key, KeyByteOrder: binaryutil.BigEndian,
			Dynamic: true, HasTimeout: true, Timeout: askerMemory, Size: size,
		}
	}
	on := func(key nftables.SetDatatype) nftables.SetDatatype {
		return nftables.MustConcatSetType(nftables.TypeIFIndex, key)
	}
	a.known = set(4, "askers", on(nftables.TypeEtherAddr), maxAskers)
	a.fresh = set(5, "new_askers", on(nftables.TypeEtherAddr), maxNew)
	a.full, a.fullKnown = set(6, "full_for", nftables.TypeInetProto, 2), set(9, "full_for_known", nftables.TypeInetProto, 2)
	a.web, a.web6 = set(7, "web_askers", on(nftables.TypeIPAddr), maxNew), set(8, "web_askers6", on(nftables.TypeIP6Addr), maxNew)
	var err error
	for _, s := range []*nftables.Set{a.known, a.fresh, a.full, a.fullKnown, a.web, a.web6} {
		err = errors.Join(err, q.AddSet(s, nil))
	}
	return err
}

func update(s *nftables.Set) match {
	return match{&expr.Dynset{
		SrcRegKey: r0, SetName: s.Name, SetID: s.ID, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: askerMemory,
	}}
}

// The keys are in r0 and behind it, as askerKey has them.

// rememberWeb adds the rules for TCP, before those of chain for all.
func (a *askers) rememberWeb(b *chainBuilder, web, chain *nftables.Chain) {
	by := meta(expr.MetaKeyIIF, r0)
	b.rule(web, "its address", ipv4(b.table), match{by, addr(offSaddr, r1)}, update(a.web))
	b.rule(web, "its address", ipv6(b.table), match{by, addr6(offSaddr6, r1)}, update(a.web6))
	b.rule(web, "its machine", jump(chain))
}

// remember adds the rules of a chain that remembers which machine sent.
func (a *askers) remember(b *chainBuilder, chain *nftables.Chain, known *nftables.Set) {
	mac := func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseLLHeader, Offset: offSourceMAC, Len: 6}
	}
	source := match{meta(expr.MetaKeyIIF, r0), mac(r1)}
	isKnown := match{mac(reg1), &expr.Lookup{SourceRegister: reg1, SetName: known.Name, SetID: known.ID}}
	back := match{&expr.Verdict{Kind: expr.VerdictReturn}}
	b.rule(chain, "a machine that is known", fromEther(), isKnown, source, update(a.known), back)
	b.rule(chain, "a machine that is new", fromEther(), source, update(a.fresh), back)
	b.rule(chain, "no room for one that is known", fromEther(), isKnown,
		match{meta(expr.MetaKeyL4PROTO, reg1)}, update(a.fullKnown))
	b.rule(chain, "no room for it", match{meta(expr.MetaKeyL4PROTO, reg1)}, update(a.full))
}

// askerKey is a key of askers: what is remembered of an interface.
func askerKey(ifindex int, what []byte) []byte {
	key := append(binaryutil.NativeEndian.PutUint32(uint32(ifindex)), what...) // #nosec G115 -- the kernel's are 31 bits
	return append(key, make([]byte, -len(key)&3)...)
}

// Silent reports whether it is certain that for some 15 seconds no frame came from a machine
// by an interface to our ports, nor from a host by TCP. It does not wait for a change of
// the table unless it is.
func (f *Frames) Silent(ctx context.Context, ifindex int, mac [6]byte, host netip.Addr) (bool, error) {
	s, who := f.since.Load(), asker{ifindex, mac}
	if s == nil || time.Since(s.table) < askerMemory || f.recent.justNow(who) {
		return false, nil // what was before the table nobody remembers
	}
	began, known := s.known[mac]
	sets := []*nftables.Set{f.askers.known, f.askers.fresh}
	if !known {
		sets[0], sets[1] = sets[1], sets[0]
	}
	for _, set := range sets {
		sent, err := f.has(ctx, set, askerKey(ifindex, mac[:]))
		if sent {
			f.recent.note(who)
		}
		if sent || err != nil {
			return false, err
		}
	}
	web := f.askers.web
	if host.Is6() {
		web = f.askers.web6
	}
	if sent, err := f.has(ctx, web, askerKey(ifindex, host.AsSlice())); sent || err != nil {
		return false, err
	}
	full := f.askers.fullKnown
	if !known || time.Since(began) < askerMemory {
		full = f.askers.full
	}
	for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		if full, err := f.has(ctx, full, []byte{protocol}); full || err != nil {
			return false, err
		}
	}
	return f.certain(ctx)
}

// has reports whether a set has a key.
func (f *Frames) has(ctx context.Context, set *nftables.Set, key []byte) (bool, error) {
	_, err := f.quick.get(ctx, set, [][]byte{key})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("nft: %w", explain(err))
	}
	return true, nil
}

// certain reports whether the rules are as they were written: who is not in a set may have
// sent, where somebody took it away.
func (f *Frames) certain(ctx context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) < recheck {
		return f.intact, nil
	}
	held, err := f.held(ctx)
	if err != nil {
		return false, fmt.Errorf("nft: %w", explain(err))
	}
	f.checked, f.intact = time.Now(), held
	return held, nil
}

// remembered notes since when the kernel remembers, after the table was written or the
// known machines were. The lock is held.
func (f *Frames) remembered(table time.Time) {
	now := time.Now()
	last := f.since.Load()
	next := &since{table: table, known: make(map[[6]byte]time.Time, len(f.heard))}
	for _, mac := range f.heard {
		next.known[mac] = now
		if last != nil {
			if began, already := last.known[mac]; already {
				next.known[mac] = began
			}
		}
	}
	f.since.Store(next)
}
