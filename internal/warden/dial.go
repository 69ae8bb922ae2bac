package warden

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"portcullis/internal/gena"
	"portcullis/internal/netif"
	"portcullis/internal/special"
)

// Connections to subscribers of events are bounded, or whoever owns the front could search
// the LANs for open ports with the router's own address: so many at once, and then in a
// second. Events wait for their turn; more than eight are never on their way at once, and
// what changes meanwhile joins them (internal/gena).
const (
	dialBurst  = 32
	dialEvery  = time.Second / 32
	dialWithin = 5 * time.Second // as long as an event may take in all
	dialAtOnce = 8               // as many as an honest front has
)

// newDials bounds them.
func newDials() *rate.Limiter { return rate.NewLimiter(rate.Every(dialEvery), dialBurst) }

var (
	errNotServed = errors.New("this LAN is not served")
	errNotLocal  = errors.New("not an address of the gateway there")
	errNotHost   = errors.New("not a host of this LAN")
	errService   = errors.New("events are not sent to the ports of a system's services")
)

// Dial connects to a subscriber of events, out of its LAN and from an address of ours
// there: to another host that is on the link, and none of its system's services (abuse
// case F1).
func (w *Warden) Dial(ctx context.Context, lan string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	local, to = local.WithZone(""), netip.AddrPortFrom(to.Addr().WithZone(""), to.Port())
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	err := w.mayDial(lan, local, to)
	if err == nil {
		err = w.subscribed(ctx, w.LANs()[lan], to.Addr())
	}
	if err != nil {
		return nil, fmt.Errorf("event for %s: %w", to, err)
	}
	if err := w.dials.Wait(ctx); err != nil {
		return nil, err
	}
	return made(ctx, w, w.dialing, func() (net.Conn, error) { return gena.Dial(ctx, lan, local, to) })
}

func (w *Warden) mayDial(lan string, local netip.Addr, to netip.AddrPort) error {
	l, served := w.LANs()[lan]
	switch {
	case !served:
		return errNotServed
	case !slices.ContainsFunc(l.Addrs, func(a netip.Addr) bool { return a.WithZone("") == local }):
		return errNotLocal
	case !w.isHost(l, to.Addr()) || to.Addr().Is4() != local.Is4():
		return errNotHost
	case to.Port() < gena.MinPort:
		return errService
	}
	return nil
}

// subscribed refuses a host that cannot have subscribed: its first event comes at once,
// when the kernel has just seen it ask. Then it is remembered.
func (w *Warden) subscribed(ctx context.Context, l netif.LAN, host netip.Addr) error {
	s := subscriber{l.Name, host}
	if l.MAC == [6]byte{} || w.subscribers.has(s) {
		return nil
	}
	m, err := w.machine(l, host)
	if err == nil {
		err = w.hasSent(ctx, m, host)
	}
	if err == nil {
		w.subscribers.note(s)
	}
	return err
}

// maxSubscribers are remembered, more than there can be (gena.DefaultMaxTotal).
const maxSubscribers = 256

type subscriber struct {
	lan  string
	host netip.Addr
}

// subscribers are hosts that have asked for something when their first event was sent.
// The zero value is ready, and safe for concurrent use.
type subscribers struct {
	mu  sync.Mutex
	all map[subscriber]struct{} // guarded by mu
}

func (s *subscribers) has(one subscriber) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, noted := s.all[one]
	return noted
}

// note remembers one, and forgets any other where there is no room.
func (s *subscribers) note(one subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[subscriber]struct{})
	}
	for other := range s.all {
		if len(s.all) < maxSubscribers {
			break
		}
		delete(s.all, other)
	}
	s.all[one] = struct{}{}
}

// isHost reports whether an address can be another host's on a LAN: not the gateway's on
// any side of it, nor what all hosts of a network have in common.
func (w *Warden) isHost(l netif.LAN, a netip.Addr) bool {
	v := w.network.View()
	_, ours := v.Local[a]
	if !l.OnLink(a) || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || ours || v.WAN().External == a {
		return false
	}
	for _, lan := range v.LAN {
		edge := func(p netip.Prefix) bool { return special.Edge(p, a) }
		if slices.Contains(lan.Addrs, a) || slices.ContainsFunc(lan.Prefixes, edge) {
			return false
		}
	}
	return !slices.Contains(v.WANAddrs, a)
}

// Resolve has the kernel ask a LAN who has an address, without waiting for the answer.
func (w *Warden) Resolve(lan string, addr netip.Addr) error {
	l, served := w.LANs()[lan]
	switch addr = addr.WithZone(""); {
	case !served:
		return errNotServed
	case !l.HasMAC(addr) || !w.isHost(l, addr):
		return errNotHost
	}
	return w.kernel.Resolve(l.Index, addr)
}
