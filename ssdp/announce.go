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

// adopt takes over what the caller says about the interface.
func (o *owner) adopt(now time.Time, v datagram.View) {
	o.view = v
	o.queue.keep(v.Locals) // no others can be spoken from
	for _, s := range o.scopes {
		s.others = nil
		old := s.local
		if s.local = s.choose(v.Locals); s.local == old {
			continue // other prefixes, nothing to tell
		}
		o.queue.drop(s) // its answers would name an address that is gone
		if old.IsValid() {
			o.withdraw(s, old)
		}
		if s.local.IsValid() {
			o.appear(now, s, !old.IsValid())
		}
	}
}

// withdraw says byebye for what was announced from an address that may be gone,
// and then the kernel does not send from it. The scope's new one is as good, and
// so is one that fits another scope: a byebye names no location.
func (o *owner) withdraw(s *scope, old netip.Addr) {
	from := old
	for _, a := range []netip.Addr{o.view.Local(), s.local} {
		if a.IsValid() {
			from = a
		}
	}
	o.sendSet(s, appendByebye, from)
	o.log.Info("discovery withdrawn", "address", old, "bootid", s.facts.bootID)
}

// appear begins with a new address, under a BOOTID that was never used before.
func (o *owner) appear(now time.Time, s *scope, anew bool) {
	shown, err := describe(o.cfg.Describe, s.local)
	if err != nil {
		o.log.Error("discovery off: unusable location", "address", s.local, "err", err)
		s.local = netip.Addr{}
		return
	}
	s.facts.shown = shown
	if s.appeared {
		s.facts.bootID = o.cfg.NewBootID(s.facts.bootID)
	}
	s.appeared = true
	if anew {
		// What an earlier run left behind ends here (WANIPConnection:2 section
		// 1.2); after a change of address, withdraw has just said it.
		o.sendSet(s, appendByebye, s.local)
	}
	// Never together with the byebye: datagrams overtake each other.
	s.copies, s.announce = aliveCopies, now.Add(aliveDelay+upTo(aliveDelay))
	o.log.Info("discovery announced", "address", s.local, "bootid", s.facts.bootID)
}

// alive sends the whole set and fixes the time of the next one: in a moment
// while copies are left, then at a random time before half of the max-age. The
// set is refreshed as a whole (UDA 2.0 section 1.2.2).
func (o *owner) alive(now time.Time, s *scope) {
	o.sendSet(s, appendAlive, s.local)
	if s.copies--; s.copies > 0 {
		s.announce = now.Add(aliveGap + upTo(aliveGap))
		return
	}
	quarter := o.cfg.MaxAge / 4
	s.announce, s.copies = now.Add(quarter+upTo(quarter)), 1
}

// farewell says byebye for all rows at the end.
func (o *owner) farewell() {
	var known []*scope
	for _, s := range o.scopes {
		if s.local.IsValid() {
			known = append(known, s)
		}
	}
	for n := range byebyeCopies {
		if n > 0 && len(known) > 0 {
			time.Sleep(byebyeGap)
		}
		for _, s := range known {
			o.sendSet(s, appendByebye, s.local)
		}
	}
	for _, s := range known {
		o.log.Info("discovery withdrawn", "address", s.local, "bootid", s.facts.bootID)
	}
}

// sendSet multicasts one message a row. A failure is no news by the row.
func (o *owner) sendSet(s *scope, message func([]byte, *facts, row) []byte, from netip.Addr) {
	var failed error
	for _, r := range o.cat.all {
		o.buf = message(o.buf[:0], &s.facts, r)
		if err := o.conn.Send(o.buf, from, s.group); err != nil {
			failed = err
		}
	}
	if failed != nil {
		o.log.Warn("announcement not sent", "address", from, "err", failed)
	}
}
