package gena

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// A message is one delivery under way.
type message struct {
	sub   *subscription
	ctx   context.Context // ends with the time for it, with its subscription, and with Run
	seq   uint32
	first bool       // the values come from the subscription's initial function
	props []Property // what to say; for the first one, what was said
}

// Run delivers events until ctx ends. Then it cuts off what is under way, ends
// all subscriptions, refuses new ones, and returns nil when every goroutine it
// started has ended. It can be called once; after that it returns an error.
func (n *Notifier) Run(ctx context.Context) error {
	n.mu.Lock()
	twice := n.began
	n.began = true
	n.mu.Unlock()
	if twice {
		return errRunTwice
	}
	var deliveries sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		ready, wait := n.next(ctx, time.Now())
		for _, m := range ready {
			deliveries.Go(func() { n.finish(m, n.send(m)) })
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-n.wake:
		case <-timer.C:
		}
	}
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.Reset()
	deliveries.Wait()
	return nil
}

// next takes the messages out of the line that may go now, and returns how long
// until there may be more, should nobody wake Run before.
func (n *Notifier) next(ctx context.Context, now time.Time) ([]*message, time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wait := n.expire(now)
	var ready []*message
	n.queue = slices.DeleteFunc(n.queue, func(s *subscription) bool {
		if !n.mayDeliver(s.sub) {
			return false // finish wakes Run
		}
		if early := s.notBefore.Sub(now); early > 0 {
			wait = min(wait, early)
			return false
		}
		n.running++
		n.count(s.sub, load{deliveries: 1})
		ready = append(ready, n.take(ctx, s, now))
		return true
	})
	return ready, wait
}

// take makes the next message of s. n.mu is held.
func (n *Notifier) take(ctx context.Context, s *subscription, now time.Time) *message {
	ctx, cancel := context.WithTimeout(ctx, deliveryTime)
	m := &message{sub: s, ctx: ctx, seq: s.seq, first: s.initialDue, props: s.pending}
	s.cancel = cancel
	s.seq = nextSeq(s.seq) // used up even if the message fails
	s.queued, s.due, s.initialDue = false, false, false
	s.pending = nil
	s.notBefore = now.Add(n.cfg.MinInterval)
	return m
}

// send delivers m, and turns a panic of the caller's functions into a failure:
// one service's mistake must not end the others' events.
func (n *Notifier) send(m *message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			n.mu.Lock()
			n.stats.Panics++
			n.mu.Unlock()
			n.cfg.Logger.Error("event delivery panicked", "service", m.sub.service, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if m.first {
		m.props = m.sub.initial()
	}
	return n.deliver(m)
}

// finish books the end of m, and lets its subscription's next message go.
func (n *Notifier) finish(m *message, err error) {
	s := m.sub
	failures := n.book(m, err)
	n.poke()
	if failures > 0 {
		n.cfg.Logger.Debug("event not delivered", "service", s.service, "subscriber", s.sub.Addr,
			"interface", s.sub.Interface, "seq", m.seq, "failures", failures, "err", err)
	}
}

// book returns how many messages in a row have failed now; 0 also when the
// subscription has ended meanwhile, for then the outcome does not matter.
func (n *Notifier) book(m *message, err error) (failures int) {
	s := m.sub
	n.mu.Lock()
	defer n.mu.Unlock()
	s.cancel()
	s.cancel = nil
	n.running--
	n.count(s.sub, load{deliveries: -1})
	if s.gone {
		return 0
	}
	if err == nil {
		n.stats.Delivered++
		s.failures = 0
		n.enqueue(s)
		return 0
	}
	n.stats.Failed++
	if s.failures++; s.failures >= maxFailures {
		n.stats.Dropped++
		n.remove(s)
	} else {
		s.pending = merge(m.props, s.pending) // told with the next change, not before
		n.enqueue(s)
	}
	return s.failures
}
