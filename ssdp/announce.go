package ssdp

import (
	"net/netip"
	"time"

	"portcullis/datagram"
)

// The announcement schedule (spec-digest section 1.6).
const (
	aliveCopies  = 3                      // of the first set; never more (UDA 2.0 section 1.2.2)
	aliveGap     = 200 * time.Millisecond // between copies, and up to as much again
	aliveDelay   = 100 * time.Millisecond // after a byebye, and up to as much again
	byebyeCopies = 2                      // at the end
	byebyeGap    = 100 * time.Millisecond
)

// adopt takes over what the caller says about the interface.
func (o *owner) adopt(now time.Time, v datagram.View) {
	old := o.view.Local()
	o.view = v
	if v.Local() == old {
		return // other prefixes, nothing to tell
	}
	o.queue.clear() // its answers were to leave from an address that is gone
	if old.IsValid() {
		o.withdraw(v.Local(), old)
	}
	if v.Local().IsValid() {
		o.appear(now, !old.IsValid())
	}
}

// withdraw says byebye for what was announced from an address that may be gone.
// The new one is as good to send from: a byebye names no location.
func (o *owner) withdraw(local, old netip.Addr) {
	from := local
	if !from.IsValid() {
		from = old
	}
	o.sendSet(appendByebye, from)
	o.log.Info("discovery withdrawn", "address", old, "bootid", o.facts.bootID)
}

// appear begins with a new address, under a BOOTID that was never used before.
func (o *owner) appear(now time.Time, anew bool) {
	shown, err := describe(o.cfg.Describe, o.view.Local())
	if err != nil {
		o.log.Error("discovery off: unusable location", "address", o.view.Local(), "error", err)
		o.view = datagram.View{}
		return
	}
	o.facts.shown = shown
	if o.appeared {
		o.facts.bootID = o.cfg.NewBootID(o.facts.bootID)
	}
	o.appeared = true
	if anew {
		// What an earlier run left behind ends here (WANIPConnection:2 section
		// 1.2); after a change of address, withdraw has just said it.
		o.sendSet(appendByebye, o.view.Local())
	}
	// Never together with the byebye: datagrams overtake each other.
	o.copies, o.announce = aliveCopies, now.Add(aliveDelay+upTo(aliveDelay))
	o.log.Info("discovery announced", "address", o.view.Local(), "bootid", o.facts.bootID)
}

// alive sends the whole set and fixes the time of the next one: in a moment
// while copies are left, then at a random time before half of the max-age. The
// set is refreshed as a whole (UDA 2.0 section 1.2.2).
func (o *owner) alive(now time.Time) {
	o.sendSet(appendAlive, o.view.Local())
	if o.copies--; o.copies > 0 {
		o.announce = now.Add(aliveGap + upTo(aliveGap))
		return
	}
	quarter := o.cfg.MaxAge / 4
	o.announce, o.copies = now.Add(quarter+upTo(quarter)), 1
}

// farewell says byebye for all rows at the end.
func (o *owner) farewell() {
	if !o.view.Local().IsValid() {
		return
	}
	for n := range byebyeCopies {
		if n > 0 {
			time.Sleep(byebyeGap)
		}
		o.sendSet(appendByebye, o.view.Local())
	}
	o.log.Info("discovery withdrawn", "address", o.view.Local(), "bootid", o.facts.bootID)
}

// sendSet multicasts one message a row. A failure is no news by the row.
func (o *owner) sendSet(message func([]byte, *facts, row) []byte, from netip.Addr) {
	var failed error
	for _, r := range o.cat.all {
		o.buf = message(o.buf[:0], &o.facts, r)
		if err := o.conn.Send(o.buf, from, Group); err != nil {
			failed = err
		}
	}
	if failed != nil {
		o.log.Warn("announcement not sent", "address", from, "error", failed)
	}
}
