package pcp

import (
	"errors"
	"net/netip"
	"time"

	"portcullis/internal/datagram"
)

// Announcements are for everybody: mappings may be lost, or lead from another
// address: ten copies by each protocol, the first at once, the second after 250
// ms, and then after twice as long each time (RFC 6886 section 3.2.1, RFC 6887
// section 14.1.3).
const (
	announceCopies = 10
	announceGap    = 250 * time.Millisecond
)

// announcer is the state of one series.
type announcer struct {
	cfg  *Config
	conn datagram.Conn
	sent int
	due  time.Time // of the next copy, while there is one
}

// restart begins the series anew.
func (a *announcer) restart(now time.Time) { a.sent, a.due = 0, now }

// next returns the time of the next copy.
func (a *announcer) next() (time.Time, bool) { return a.due, a.sent < announceCopies }

// act sends the copy that is due. The times of the others follow from the first,
// so that a late copy does not delay the rest. It leaves from all of these addresses,
// at least one; the first is there to stay.
func (a *announcer) act(now time.Time, from []netip.Addr) error {
	if due, more := a.next(); !more || due.After(now) {
		return nil
	}
	a.due = a.due.Add(announceGap << a.sent)
	a.sent++
	for _, other := range from[1:] {
		_ = a.tell(now, other) // that comes and goes, and may just have gone
	}
	return a.tell(now, from[0])
}

// tell announces by each protocol from an address.
func (a *announcer) tell(now time.Time, local netip.Addr) (failed error) {
	epoch, to := a.cfg.Epoch.Seconds(now), announceTo(local)
	// NAT-PMP goes first: some of its clients wait at port 5350 and take what
	// comes for their reply, as long as it is NAT-PMP (npm nat-pmp). Without an
	// address there is nothing to announce by it.
	if external := a.cfg.External(); a.cfg.NATPMP && external.Is4() {
		failed = a.conn.Send(addressReply(resultOK, epoch, external), local, to)
	}
	if a.cfg.PCP { // ANNOUNCE is a header and nothing else (RFC 6887 section 14.1.1)
		failed = errors.Join(failed, a.conn.Send(appendHead(nil, opAnnounce, success, 0, epoch), local, to))
	}
	return failed
}

// speakers returns the addresses that announcements leave from. A host heeds only what
// its own router says (RFC 6886 section 3.2.1): over IPv4 that may be any address of
// ours, over IPv6 any link-local one, and those stand first.
func speakers(a datagram.Addresses) []netip.Addr {
	n := 0
	for n < len(a.Locals) && (a.Locals[n].Is4() || a.Locals[n].IsLinkLocalUnicast()) {
		n++
	}
	return a.Locals[:max(n, min(len(a.Locals), 1))]
}
