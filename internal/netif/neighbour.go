package netif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// aliveStates are the states of a neighbour entry whose MAC address is, or was
// until nobody asked any more, confirmed. INCOMPLETE and FAILED say that
// nothing answered.
const aliveStates = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY |
	unix.NUD_PROBE | unix.NUD_PERMANENT | unix.NUD_NOARP

// sizeofNdmsg is the header of a neighbour message, struct ndmsg of
// linux/neighbour.h: family, padding, interface index, state, flags, type.
const sizeofNdmsg = 12

// header is the fixed part of a netlink message.
type header []byte

func (h header) Len() int          { return len(h) }
func (h header) Serialize() []byte { return h }

// ndmsg is the header of a question about neighbours.
func ndmsg(family uint8, ifindex int, flags uint8) header {
	h := make(header, sizeofNdmsg)
	h[0], h[10] = family, flags
	binary.NativeEndian.PutUint32(h[4:], uint32(ifindex))
	return h
}

// answeredStates say that the host has answered within the last half minute or so,
// or that the owner vouches for the entry.
const answeredStates = unix.NUD_REACHABLE | unix.NUD_PERMANENT | unix.NUD_NOARP

// justNow is how fresh a confirmation proves by itself that there was one: a new
// entry means that it was confirmed a minute ago (twice base_reachable_time).
const justNow = 5 * time.Second

// Sighting is what the kernel knows of a neighbour.
type Sighting struct {
	MAC [6]byte

	// Answered means that the host has answered a question of the kernel's lately, or
	// has carried on a conversation with it. An entry of which this was never true is
	// what somebody said of himself.
	Answered bool

	// Seen means that it is on the link: it has answered within the last minute. An
	// entry that the owner made is no sighting.
	Seen bool
}

// seenWithin is less than the minute that a new entry claims.
const seenWithin = 55 * time.Second

// Neighbour returns the MAC address that the kernel knows for addr on the
// interface with this index, and false when it knows none (nobody answered, or
// the link has no MAC addresses).
func (k *Kernel) Neighbour(ifindex int, addr netip.Addr) ([6]byte, bool, error) {
	s, known, err := k.Sight(ifindex, addr)
	return s.MAC, known, err
}

// Sight is Neighbour with all that is known.
//
// It asks for this one entry (RTM_GETNEIGH with NDA_DST, Linux 5.0), so the
// cost does not grow with the number of neighbours; the library only lists them
// all. Older kernels cannot be asked so, and there the interface's entries are
// read and searched. Of a host that has answered the kernel, what was said within
// the last second is not asked again while no neighbour changes.
func (k *Kernel) Sight(ifindex int, addr netip.Addr) (Sighting, bool, error) {
	addr = addr.WithZone("")
	if ifindex <= 0 || !addr.IsValid() || addr.Is4In6() {
		return Sighting{}, false, fmt.Errorf("neighbour %s on interface %d: not an address on a link", addr, ifindex)
	}
	of, now := sight{ifindex, addr}, time.Now()
	s, age, known := k.sights.recall(of, now)
	if known {
		return s, true, nil
	}
	s, known, err := k.askNeighbour(ifindex, addr)
	if err == nil && known && s.Answered {
		k.sights.note(of, s, age, now)
	}
	return s, known, err
}

// askNeighbour is Sight without anything that was said before.
func (k *Kernel) askNeighbour(ifindex int, addr netip.Addr) (Sighting, bool, error) {
	req := request(k.neighbours, unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, 0)
	req.AddData(ndmsg(family(addr), ifindex, 0))
	req.AddData(nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()))
	var found Sighting
	known := false
	err := k.ask(req, func(m []byte) {
		if n, ok := parseNeighbour(m); ok && n.index == ifindex && n.addr == addr {
			found, known = n.sighting(), true
		}
	})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return k.searchNeighbour(ifindex, addr)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return found, false, nil
	case err != nil:
		return found, false, fmt.Errorf("ask for neighbour %s: %w", addr, err)
	}
	return found, known, nil
}

// Resolve makes the kernel ask the link who has addr, without waiting for the
// answer: Neighbour will know it soon. A host that speaks to us need not be known,
// because the kernel forgets neighbours while they still remember us.
func (k *Kernel) Resolve(ifindex int, addr netip.Addr) error {
	req := request(k.neighbours, unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	req.AddData(ndmsg(family(addr), ifindex, unix.NTF_USE))
	req.AddData(nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()))
	if err := k.ask(req, func([]byte) {}); err != nil {
		return fmt.Errorf("resolve neighbour %s: %w", addr, err)
	}
	return nil
}

// Present reports whether a host with this MAC address has answered the kernel's
// questions within the given time, under any address of the family. It reads all
// entries of the interface, and is for questions that are rare.
func (k *Kernel) Present(ifindex int, mac [6]byte, family uint8, within time.Duration) (bool, error) {
	found := false
	err := k.eachNeighbour(ifindex, family, func(n *neighbour) bool {
		found = n.mac == mac && n.confirmed <= within
		return !found
	})
	if err != nil && !(found && errors.Is(err, nl.ErrDumpInterrupted)) {
		return false, fmt.Errorf("look for %x among the neighbours: %w", mac, err)
	}
	return found, nil
}

// Neighbours calls f for each neighbour on an interface, of both families. It reads
// all entries of the interface, and is for questions that are rare.
func (k *Kernel) Neighbours(ifindex int, f func(netip.Addr, Sighting)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := k.eachNeighbour(ifindex, family, func(n *neighbour) bool {
			f(n.addr, n.sighting())
			return true
		})
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return fmt.Errorf("list the neighbours: %w", err)
		}
	}
	return nil
}

// eachNeighbour calls f for each neighbour of a family on an interface that is alive
// and has a MAC address, until f returns false.
func (k *Kernel) eachNeighbour(ifindex int, family uint8, f func(*neighbour) bool) error {
	req := request(k.neighbours, unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(ndmsg(family, 0, 0))
	req.AddData(nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(ifindex)))) // narrows it from 4.4 on
	more := true
	return req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH, func(m []byte) bool {
		if n, ok := parseNeighbour(m); ok && n.index == ifindex && more {
			more = f(&n)
		}
		return more
	})
}

// searchNeighbour is Sight on kernels before 5.0.
func (k *Kernel) searchNeighbour(ifindex int, addr netip.Addr) (Sighting, bool, error) {
	var s Sighting
	found := false
	err := k.eachNeighbour(ifindex, family(addr), func(n *neighbour) bool {
		if found = n.addr == addr; found {
			s = n.sighting()
		}
		return !found
	})
	// An interrupted dump may have missed the entry; one that shows it is as
	// good as any.
	if err != nil && !(found && errors.Is(err, nl.ErrDumpInterrupted)) {
		return Sighting{}, false, fmt.Errorf("search for neighbour %s: %w", addr, err)
	}
	return s, found, nil
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

type neighbour struct {
	index     int
	state     uint16
	addr      netip.Addr
	mac       [6]byte
	confirmed time.Duration // ago
}

func (n *neighbour) sighting() Sighting {
	return Sighting{
		MAC:      n.mac,
		Answered: n.state&answeredStates != 0 || n.confirmed < justNow,
		Seen:     n.state&unix.NUD_REACHABLE != 0 || n.confirmed < seenWithin && n.state&(unix.NUD_PERMANENT|unix.NUD_NOARP) == 0,
	}
}

// userHz is the unit of the times that the kernel tells of neighbours, a second
// (USER_HZ of the kernel's interface, the same on every architecture we build for).
const userHz = 100

// parseNeighbour decodes a neighbour that is alive and has a MAC address.
func parseNeighbour(m []byte) (neighbour, bool) {
	n, ok := decodeNeighbour(m)
	return n, ok && n.state&aliveStates != 0 && n.mac != [6]byte{}
}

func decodeNeighbour(m []byte) (neighbour, bool) {
	if len(m) < sizeofNdmsg {
		return neighbour{}, false
	}
	n := neighbour{index: int(binary.NativeEndian.Uint32(m[4:])), state: binary.NativeEndian.Uint16(m[8:])}
	for t, v := range attributes(m[sizeofNdmsg:]) {
		switch t {
		case unix.NDA_DST:
			n.addr = attrAddr(v)
		case unix.NDA_LLADDR:
			if len(v) == len(n.mac) {
				copy(n.mac[:], v)
			}
		case unix.NDA_CACHEINFO: // struct nda_cacheinfo: confirmed, used, updated, refcnt
			if len(v) >= 4 {
				n.confirmed = time.Duration(binary.NativeEndian.Uint32(v)) * time.Second / userHz
			}
		}
	}
	return n, n.addr.IsValid()
}
