package daemon

import (
	"context"
	"errors"

	"portcullis/internal/listeners"
	"portcullis/internal/netif"
)

// buildServers makes what the listeners of all LANs have in common.
func (g *gate) buildServers() (err error) {
	g.listeners = listeners.New(listeners.Config{Log: g.log, Open: g.servers, Failed: g.follower.failed})
	if (g.cfg.PCP.NATPMP || g.cfg.PCP.PCP) && g.witness != nil {
		g.ports = newPortControl(g)
	}
	if g.cfg.UPnP.Enabled {
		g.upnp, err = newUPnP(g)
	}
	return err
}

// servers opens the sockets of every protocol at a listener, or none.
func (g *gate) servers(ctx context.Context, at listeners.Key, l netif.LAN, accepts listeners.Accepts) (all []*listeners.Server, err error) {
	if g.upnp != nil {
		if all, err = g.upnp.servers(ctx, at, l, accepts); err != nil {
			return nil, err
		}
	}
	// NAT-PMP knows no IPv6.
	if g.ports != nil && !at.Also.IsValid() && (!at.IPv6 || g.cfg.PCP.PCP) {
		s, err := g.ports.server(ctx, at, l)
		if err != nil {
			for _, opened := range all {
				err = errors.Join(err, opened.Close())
			}
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// serve answers until ctx ends, and waits for all listeners to be closed.
func (g *gate) serve(ctx context.Context) (err error) {
	if g.upnp != nil {
		err = g.upnp.run(ctx)
	}
	g.listeners.Wait(ctx)
	return err
}
