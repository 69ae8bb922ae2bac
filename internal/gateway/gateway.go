package gateway

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"portcullis/firewall"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Config is what a Gateway needs; every field must be set.
type Config struct {
	// Listening reads the gateway's own services, Forwarded what its owner forwards.
	Listening func(context.Context) (netif.Ports, error)
	Forwarded func(context.Context) (*firewall.Forwards, error)
}

// Gateway is the machine as it is now: what netif reads, and what the firewall knows of
// the owner's own rules. Its methods are safe for concurrent use.
type Gateway struct {
	inUse *inUse
	roles atomic.Pointer[netif.Roles]
	view  atomic.Pointer[portmap.View]

	mu      sync.Mutex // held while a view is published
	network portmap.View
}

// New returns a Gateway without any network.
func New(cfg Config) *Gateway {
	g := &Gateway{inUse: newInUse(cfg.Listening, cfg.Forwarded)}
	g.Set(netif.State{}, netif.Roles{})
	return g
}

// Roles returns which interfaces are LANs and WANs now.
func (g *Gateway) Roles() netif.Roles { return *g.roles.Load() }

// LANs returns the LANs as they are now, by interface.
func (g *Gateway) LANs() map[string]netif.LAN {
	all := make(map[string]netif.LAN)
	for _, l := range g.roles.Load().LAN {
		all[l.Name] = l
	}
	return all
}

// View returns the network as it is now. Nobody changes it.
func (g *Gateway) View() *portmap.View { return g.view.Load() }

// Look makes the view tell of ports in use as they were a moment ago.
func (g *Gateway) Look(ctx context.Context) {
	g.inUse.look(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.publish()
	})
}

// RulesChanged makes the next Look read the owner's rules, however fresh they are.
func (g *Gateway) RulesChanged() { g.inUse.stale.Store(true) }

// publish puts the view together. mu is held.
func (g *Gateway) publish() {
	v := g.network
	v.InUse, v.InUseErr = g.inUse.list(g.roles.Load().WAN)
	g.view.Store(&v)
}

// Set publishes what the network looks like now.
func (g *Gateway) Set(s netif.State, r netif.Roles) {
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
