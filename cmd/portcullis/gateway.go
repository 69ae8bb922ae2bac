package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"portcullis/firewall"
	"portcullis/netif"
	"portcullis/portmap"
)

// gateway is the engine's view of the machine, made of what netif reads and of
// what the firewall knows of the owner's own rules.
type gateway struct {
	view      atomic.Pointer[portmap.View]
	roles     atomic.Pointer[netif.Roles]
	listening *netif.ListeningCache
	forwarded func(ctx context.Context, tr portmap.Transport, port uint16) (where string, err error)
}

// View gives the network as it is now.
func (g *gateway) View() *portmap.View { return g.view.Load() }

// InUse says whether a service of the gateway, or a rule of its owner, has the
// external port already (abuse case B8), or nobody ever gets it.
func (g *gateway) InUse(ctx context.Context, tr portmap.Transport, port uint16) (string, error) {
	if firewall.Spare(port) {
		return fmt.Sprintf("ports %d to %d are kept for hosts whose own port is mapped to another", firewall.SpareFirst, firewall.SpareLast), nil
	}
	ports, err := g.listening.Get(ctx)
	if err != nil {
		return "", fmt.Errorf("list the gateway's own services: %w", err)
	}
	if l, conflict := ports.Conflicts(uint8(tr), port, g.roles.Load().WAN); conflict {
		return fmt.Sprintf("the gateway itself listens on %s", netip.AddrPortFrom(l.Addr, l.Port)), nil
	}
	return g.forwarded(ctx, tr, port)
}

// set publishes what the network looks like now.
func (g *gateway) set(s netif.State, r netif.Roles) {
	g.roles.Store(&r)
	v := &portmap.View{
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
	g.view.Store(v)
}
