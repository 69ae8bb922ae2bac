package ssdp

import (
	"net/netip"
	"time"

	"portcullis/internal/datagram"
)

// The announcement schedule (UDA 2.0 sections 1.2.2 and 1.2.3).
const (
	aliveCopies  = 3                      // of the first set; never more (UDA 2.0 section 1.2.2)
	aliveGap     = 200 * time.Millisecond // between copies, and up to as much again
	aliveDelay   = 100 * time.Millisecond // after a byebye, and up to as much again
	byebyeCopies = 2                      // at the end
	byebyeGap    = 100 * time.Millisecond
)

// Adopt implements datagram.Handler.
func (l *loop) Adopt(now time.Time, a datagram.Addresses) {
	l.addresses = a
	l.queue.keep(a.Locals) // no others can be spoken from
	for _, s := range l.scopes {
		s.others = nil
		old := s.local
		if s.local = s.choose(a.Locals); s.local == old {
			continue // other prefixes, nothing to tell
		}
		l.queue.drop(s) // its answers would name an address that is gone
		if old.IsValid() {
			l.withdraw(s, old)
		}
		if s.local.IsValid() {
			l.appear(now, s, !old.IsValid())
		}
	}
}

// withdraw sends byebye for what was announced from an address that may be gone,
// and then the kernel does not send from it. The scope's new one is as good, and
// so is one that fits another scope: a byebye names no location.
func (l *loop) withdraw(s *scope, old netip.Addr) {
	from := old
	for _, a := range []netip.Addr{l.addresses.Local(), s.local} {
		if a.IsValid() {
			from = a
		}
	}
	l.sendSet(s, appendByebye, from)
	l.log.Info("discovery withdrawn", "address", old, "bootid", s.facts.bootID)
}

// appear begins with a new address, under a BOOTID that was never used before.
func (l *loop) appear(now time.Time, s *scope, anew bool) {
	shown, err := describe(l.cfg.Describe, s.local)
	if err != nil {
		l.log.Error("discovery off: unusable location", "address", s.local, "err", err)
		s.local = netip.Addr{}
		return
	}
	s.facts.shown = shown
	if s.appeared {
		s.facts.bootID = l.cfg.NewBootID(s.facts.bootID)
	}
	s.appeared = true
	if anew {
		// What an earlier run left behind ends here (WANIPConnection:2 section
		// 1.2); after a change of address, withdraw has just said it.
		l.sendSet(s, appendByebye, s.local)
	}
	// Never together with the byebye: datagrams overtake each other.
	s.copies, s.announce = aliveCopies, now.Add(aliveDelay+upTo(aliveDelay))
	l.log.Info("discovery announced", "address", s.local, "bootid", s.facts.bootID)
}

// alive sends the whole set and fixes the time of the next one: in a moment
// while copies are left, then at a random time before half of the max-age. The
// set is refreshed as a whole (UDA 2.0 section 1.2.2).
func (l *loop) alive(now time.Time, s *scope) {
	l.sendSet(s, appendAlive, s.local)
	if s.copies--; s.copies > 0 {
		s.announce = now.Add(aliveGap + upTo(aliveGap))
		return
	}
	quarter := l.cfg.MaxAge / 4
	s.announce, s.copies = now.Add(quarter+upTo(quarter)), 1
}

// farewell sends byebye for all rows at the end.
func (l *loop) farewell() {
	var known []*scope
	for _, s := range l.scopes {
		if s.local.IsValid() {
			known = append(known, s)
		}
	}
	for n := range byebyeCopies {
		if n > 0 && len(known) > 0 {
			time.Sleep(byebyeGap)
		}
		for _, s := range known {
			l.sendSet(s, appendByebye, s.local)
		}
	}
	for _, s := range known {
		l.log.Info("discovery withdrawn", "address", s.local, "bootid", s.facts.bootID)
	}
}

// sendSet multicasts one message a row. A failure is no news by the row.
func (l *loop) sendSet(s *scope, message func([]byte, *facts, row) []byte, from netip.Addr) {
	var failed error
	for _, r := range l.cat.all {
		l.buf = message(l.buf[:0], &s.facts, r)
		if err := l.conn.Send(l.buf, from, s.group); err != nil {
			failed = err
		}
	}
	if failed != nil {
		l.log.NotSent(time.Now(), from, failed)
	}
}
