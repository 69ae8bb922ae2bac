package daemon

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// gateway is the engine's view of the machine, made of what netif reads and of
// what the firewall knows of the owner's own rules.
type gateway struct {
	inUse *inUse
	roles atomic.Pointer[netif.Roles]
	view  atomic.Pointer[portmap.View]

	mu      sync.Mutex // held while a view is published
	network portmap.View
}

// View returns the network as it is now.
func (g *gateway) View() *portmap.View { return g.view.Load() }

// Look makes the view tell of ports in use as they were a moment ago.
func (g *gateway) Look(ctx context.Context) {
	g.inUse.look(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.publish()
	})
}

// rulesChanged makes the next Look read the owner's rules, however fresh they are.
func (g *gateway) rulesChanged() { g.inUse.stale.Store(true) }

// publish puts the view together. mu is held.
func (g *gateway) publish() {
	v := g.network
	v.InUse, v.InUseErr = g.inUse.list(g.roles.Load().WAN)
	g.view.Store(&v)
}

// set publishes what the network looks like now.
func (g *gateway) set(s netif.State, r netif.Roles) {
	v := portmap.View{
		LAN:      make(map[string]portmap.LAN, len(r.LAN)),
		Local:    make(map[netip.Addr]struct{}),
		WANAddrs: slices.Concat(r.WAN.Addrs, r.WAN6.Addrs),
		WAN6:     r.WAN6.Name,
		WAN6Up:   r.WAN6.Up,
	}
	if w := r.WAN; w.Name != "" {
		v.WANs = []portmap.WAN{{Name: w.Name, Up: w.Up, External: w.External, Private: w.Refused}}
	}
	for _, l := range r.LAN {
		v.LAN[l.Name] = portmap.LAN{Prefixes: l.Prefixes, Addrs: l.Addrs}
	}
	for _, a := range s.Local() {
		v.Local[a] = struct{}{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.roles.Store(&r)
	g.network = v
	g.publish()
}
