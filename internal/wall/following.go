package wall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"portcullis/internal/netif"
)

// NotServed is what the front says that it does not serve.
type NotServed string

// Error implements error.
func (n NotServed) Error() string { return string(n) }

// Follow tells the front what the network is now, and waits until it is served, while
// Run runs. The error is a NotServed where some of it is not,
// and ErrEnded where nobody is there.
func (s *Server) Follow(ctx context.Context) error {
	s.following.Lock()
	defer s.following.Unlock()
	served := make(chan string, 1)
	s.mu.Lock()
	s.turn++
	s.served = served
	n := &Network{Turn: s.turn, LANs: s.lans()}
	s.mu.Unlock()
	n.WAN, n.Six = s.warden.Uplink()
	s.cfg.Log.tell(n.fit())
	if err := s.conn.send(Message{Body: n}); err != nil {
		return unsent("tell the front of the network", err)
	}
	select {
	case problem := <-served:
		if problem != "" {
			return NotServed(problem)
		}
		return nil
	case <-s.done:
		return ErrEnded
	case <-ctx.Done():
		return fmt.Errorf("wall: the front does not follow the network: %w", context.Cause(ctx))
	}
}

// lans returns those to serve, in the order of their names.
func (s *Server) lans() []netif.LAN {
	var all []netif.LAN
	for _, l := range s.warden.LANs() {
		l.Addrs = bare(l.Addrs)
		all = append(all, l)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// fit leaves out of a network what a message has no room for, and returns how much: the
// front serves the rest. No LAN has more of anything than any other that is cut, so that
// those that have little keep it all.
func (b *Network) fit() leftOut {
	all := b.LANs
	left := leftOut{lans: max(0, len(all)-maxLANs)}
	all = all[:len(all)-left.lans]
	cut := sort.Search(maxAddrs, func(cut int) bool {
		b.LANs = cutTo(all, maxAddrs-cut)
		_, err := Encode(Message{Body: b})
		return !errors.Is(err, errLong)
	})
	b.LANs = cutTo(all, maxAddrs-cut)
	for i := range all {
		left.addresses += size(&all[i]) - size(&b.LANs[i])
	}
	return left
}

// cutTo returns LANs with at most so many addresses each, and networks.
func cutTo(all []netif.LAN, most int) []netif.LAN {
	all = slices.Clone(all)
	for i := range all {
		l := &all[i]
		l.Addrs, l.Prefixes, l.Direct = first(l.Addrs, most), first(l.Prefixes, most), first(l.Direct, most)
	}
	return all
}

func first[T any](all []T, most int) []T { return all[:min(len(all), most)] }

func size(l *netif.LAN) int { return len(l.Addrs) + len(l.Prefixes) }

// isServed notes what the front says of a network. It may pass over a network that
// another has followed, and never speaks of one that was not told.
func (s *Server) isServed(b *Served) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.Turn > s.turn:
		return errTurn
	case b.Turn == s.turn && s.served != nil:
		s.served <- b.Problem
		s.served = nil
	}
	return nil
}

// bare leaves out the zones of addresses, which the interface says.
func bare(all []netip.Addr) []netip.Addr {
	out := slices.Clone(all)
	for i := range out {
		out[i] = out[i].WithZone("")
	}
	return out
}
