package gena

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"portcullis/internal/random"
)

var (
	errFull       = errors.New("no room for another subscription")
	errUnknownSID = errors.New("no such subscription of this host and service")
)

// A subscription is one subscriber's interest in one service. The first group
// never changes; Notifier.mu guards the second.
type subscription struct {
	id      string // the SID, "uuid:" and all
	sub     Subscriber
	service string
	urls    []callback // tried in this order
	initial func() []Property

	expires    time.Time // with its monotonic reading: a set clock changes nothing (GENA-13)
	started    bool      // the answer to SUBSCRIBE is out
	initialDue bool      // the first event is not under way yet
	due        bool      // pending holds something the subscriber has to be told
	pending    []Property
	notBefore  time.Time
	queued     bool
	gone       bool
	cancel     context.CancelFunc // of the delivery under way; nil: none
	seq        uint32             // the event key of the next message
	failures   int                // in a row
}

// merge returns old with the values of changed in place of its own, and what is
// new behind. Neither argument is altered.
func merge(old, changed []Property) []Property {
	out := slices.Clone(old)
	for _, p := range changed {
		i := slices.IndexFunc(out, func(q Property) bool { return q.Name == p.Name })
		if i < 0 {
			out = append(out, p)
		} else {
			out[i].Value = p.Value
		}
	}
	return out
}

// nextSeq counts event keys: 0 is for the first message alone, so the number
// wraps to 1 (UDA 1.1 section 4.3.1).
func nextSeq(seq uint32) uint32 {
	if seq == math.MaxUint32 {
		return 1
	}
	return seq + 1
}

// newSID returns a random UUID (RFC 9562 version 4) in the form of a SID. It is
// the only secret of a subscription, so it comes from the system's generator.
func newSID() string {
	var b [16]byte
	random.Fill(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("uuid:%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// subscribe takes a subscription in. Nothing is delivered before start. It
// fails with errFull when a cap is reached or the Notifier has ended; others'
// subscriptions are not touched (GENA-14).
func (n *Notifier) subscribe(sub Subscriber, service string, urls []callback, lasts time.Duration, initial func() []Property) (*subscription, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.expire(now) // Run may not have got to it yet
	if n.closed || !n.roomFor(sub) {
		return nil, errFull
	}
	s := &subscription{
		id: newSID(), sub: sub, service: service, urls: urls, initial: initial,
		expires: now.Add(lasts), initialDue: true,
	}
	n.subs[s.id] = s
	n.count(sub, load{subscriptions: 1})
	n.poke() // the timer of Run may have to ring earlier
	return s, nil
}

// start lets the first event of s go out, the answer to its SUBSCRIBE being out.
func (n *Notifier) start(s *subscription) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.started = true
	s.due = true
	s.notBefore = time.Now().Add(settleTime)
	n.enqueue(s)
	n.poke()
}

// abandon ends s.
func (n *Notifier) abandon(s *subscription) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remove(s)
}

// renew makes the subscription with this SID last from now on. It fails with
// errUnknownSID, also when the SID is another host's or service's: who has read
// a SID off the wire gains nothing by it (abuse case F5).
func (n *Notifier) renew(sub Subscriber, service, sid string, lasts time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.find(sub, service, sid)
	if s == nil {
		return errUnknownSID
	}
	s.expires = time.Now().Add(lasts)
	n.poke()
	return nil
}

// unsubscribe ends the subscription with this SID; what was not delivered yet
// never is. It fails as renew does.
func (n *Notifier) unsubscribe(sub Subscriber, service, sid string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.find(sub, service, sid)
	if s == nil {
		return errUnknownSID
	}
	n.remove(s)
	return nil
}

// The rest is called with n.mu held.

func (n *Notifier) find(sub Subscriber, service, sid string) *subscription {
	n.expire(time.Now())
	s := n.subs[sid]
	if s == nil || s.sub.host() != sub.host() || s.service != service {
		return nil
	}
	return s
}

// expire removes what has ended; it returns how long until the next one does.
func (n *Notifier) expire(now time.Time) time.Duration {
	wait := time.Duration(math.MaxInt64)
	for _, s := range n.subs {
		if left := s.expires.Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			n.remove(s)
		}
	}
	return wait
}

// remove forgets s and cuts off what is being delivered to it. It may be called
// again.
func (n *Notifier) remove(s *subscription) {
	if s.gone {
		return
	}
	s.gone = true
	s.pending = nil
	delete(n.subs, s.id)
	if s.queued {
		n.queue = slices.DeleteFunc(n.queue, func(q *subscription) bool { return q == s })
	}
	if s.cancel != nil {
		s.cancel()
	}
	n.count(s.sub, load{subscriptions: -1})
}

// enqueue puts s in the line of those that have something to send. While a
// message is outstanding it does nothing: finish calls it then.
func (n *Notifier) enqueue(s *subscription) {
	if s.gone || s.queued || !s.started || !s.due || s.cancel != nil {
		return
	}
	s.queued = true
	n.queue = append(n.queue, s)
}

// roomFor reports whether sub may have one more subscription.
func (n *Notifier) roomFor(sub Subscriber) bool {
	l, total := n.loadOf(sub), n.cfg.MaxTotal
	if l.subscriptions > 0 {
		total -= total / reserve
	}
	return len(n.subs) < total && l.subscriptions < n.cfg.MaxPerDevice &&
		(sub.Device != "" || n.unknown.subscriptions < max(1, n.cfg.MaxTotal/2))
}

// mayDeliver reports whether one more message may be on its way to sub.
func (n *Notifier) mayDeliver(sub Subscriber) bool {
	return n.running < maxDeliveries && n.loadOf(sub).deliveries < maxShare &&
		(sub.Device != "" || n.unknown.deliveries < maxDeliveries/2)
}

func (n *Notifier) loadOf(sub Subscriber) load {
	if l := n.loads[sub.party()]; l != nil {
		return *l
	}
	return load{}
}

// count adds to what sub's party has.
func (n *Notifier) count(sub Subscriber, more load) {
	party := sub.party()
	l := n.loads[party]
	if l == nil {
		l = new(load)
		n.loads[party] = l
	}
	l.add(more)
	if *l == (load{}) {
		delete(n.loads, party)
	}
	if sub.Device == "" {
		n.unknown.add(more)
	}
}

func (l *load) add(more load) {
	l.subscriptions += more.subscriptions
	l.deliveries += more.deliveries
}
