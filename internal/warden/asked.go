package warden

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// The front says who asks, and parses what strangers send. So it is not believed: that
// the host is there, by which machine, and that this machine has sent to a port of ours in
// the last seconds, the kernel says. An honest front never asks for one that has not.

// asks fills in what is known of who asks, or refuses.
func (w *Warden) asks(ctx context.Context, c *portmap.Client) error {
	l, served := w.LANs()[c.Interface]
	if !served || !w.isHost(l, c.Addr) {
		return nil // the policy refuses it
	}
	if l.MAC == [6]byte{} { // as of a tunnel: there is no machine for a rule, a lease or a quota to name
		c.MAC, c.Unheard = portmap.MAC{}, false
		return nil
	}
	m, err := w.machine(l, c.Addr)
	switch {
	case err != nil:
	case m.own.MAC != c.MAC:
		err = refusal(portmap.NotRequester, "%s is another machine's address", c.Addr)
	default:
		c.Unheard = m.own.MAC != [6]byte{} && !m.own.Answered && !w.Heard(m.own.MAC)
		if !l.InVRF { // as which the kernel would have seen it
			err = w.hasSent(ctx, m, c.Addr)
		}
	}
	if portmap.ReasonOf(err) == portmap.NotRequester {
		w.unseen.Add(1)
		w.alerts.say(func(leftOut int) {
			w.log.Error("request refused that its host has not made", "interface", c.Interface, "address", c.Addr,
				"mac", c.MAC, "why", err, "left_out", leftOut)
		})
	}
	return err
}

// machine is what sends and gets the packets of a host on a LAN.
type machine struct {
	own  netif.Sighting // of the host itself; zero for one behind a router
	link [6]byte        // its MAC address, or its router's
	on   int            // the index of the interface of its LAN
}

// machine asks the kernel for it.
func (w *Warden) machine(l netif.LAN, host netip.Addr) (m machine, err error) {
	seen, known, err := w.kernel.Sight(l.Index, host)
	if err != nil {
		return m, unchecked(l, host, err)
	}
	m = machine{own: seen, link: seen.MAC, on: l.Index}
	if l.HasMAC(host) {
		if !known {
			err = refusal(portmap.Busy, "the MAC address of %s is not known", host)
		}
		return m, err
	}
	ifindex, hop, err := w.kernel.NextHop(own(l, host), host)
	switch {
	case err != nil:
		return m, unchecked(l, host, err)
	case ifindex != l.Index: // as for datagrams (internal/identify); no packet would get there
		return m, refusal(portmap.OffLink, "the way to %s is not by %s", host, l.Name)
	case hop != host:
		if seen, known, err = w.kernel.Sight(l.Index, hop); err != nil {
			return m, unchecked(l, host, err)
		}
		m.link = seen.MAC
	}
	if !known {
		err = refusal(portmap.Busy, "the MAC address of the way to %s is not known", host)
	}
	return m, err
}

// hasSent refuses a host of whose machine it is certain that it has sent nothing lately
// on its LAN.
func (w *Warden) hasSent(ctx context.Context, m machine, host netip.Addr) error {
	if w.silent == nil {
		return nil
	}
	silent, err := w.silent(ctx, m.on, m.link, host)
	switch {
	case silent:
		return refusal(portmap.NotRequester, "%s has sent no request lately", host)
	case err == nil:
		return nil
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	// Not even a front that is owned makes the kernel fail, and a host must not pay for it.
	w.alerts.say(func(leftOut int) {
		w.log.Warn("it cannot be checked that a host has asked", "address", host, "err", err, "left_out", leftOut)
	})
	return nil
}

// unchecked is the error of a kernel that does not say who asks.
func unchecked(l netif.LAN, host netip.Addr, err error) error {
	return &portmap.Error{Reason: portmap.Busy, Detail: fmt.Sprintf("cannot look for %s on %s", host, l.Name), Err: err}
}

// own returns the gateway's address that hosts of a family talk to.
func own(l netif.LAN, to netip.Addr) netip.Addr {
	if to.Is4() {
		return l.Addr
	}
	all := l.IPv6()
	if len(all) == 0 {
		return netip.IPv6Unspecified()
	}
	return all[len(all)-1] // link-local ones stand first
}

func refusal(reason portmap.Reason, format string, args ...any) error {
	return &portmap.Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// How often the owner is told of what only an owned front does: so many at once, then one
// a minute.
const (
	alertBurst = 3
	alertEvery = time.Minute
)

// alerts bound such lines. The zero value is ready.
type alerts struct {
	mu      sync.Mutex    // guards what follows
	lines   *rate.Limiter // nil before the first
	leftOut int           // since the last line
}

// say calls line, with how many were left out, or leaves it out.
func (a *alerts) say(line func(leftOut int)) {
	a.mu.Lock()
	if a.lines == nil {
		a.lines = rate.NewLimiter(rate.Every(alertEvery), alertBurst)
	}
	now, leftOut := a.lines.Allow(), a.leftOut
	a.leftOut++
	if now {
		a.leftOut = 0
	}
	a.mu.Unlock()
	if now {
		line(leftOut)
	}
}
