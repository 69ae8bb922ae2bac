package daemon

import (
	"context"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// end is why a mapping ends that nobody asked to end.
type end struct {
	reason portmap.Reason
	why    string
}

var renumbered = end{portmap.Revoked, "its network is not on the LAN any more"}

// dropForeign ends the pinholes of addresses that are not on their LAN any more.
func (g *gate) dropForeign(ctx context.Context) {
	lans := g.lans()
	for m := range g.engine.Snapshot().Pinholes() {
		if l, served := lans[m.Client.Interface]; !served || !l.OnLink(m.Internal.Addr()) {
			g.revoke(ctx, m, renumbered)
		}
	}
}

// revoke ends a mapping.
func (g *gate) revoke(ctx context.Context, m portmap.Mapping, e end) {
	err := g.engine.Revoke(ctx, m, e.reason)
	switch {
	case portmap.ReasonOf(err) == portmap.NoSuchMapping || ctx.Err() != nil:
	case err != nil:
		g.log.Error("cannot revoke a mapping", "internal", m.Internal, "err", err)
	default:
		g.log.Info("mapping revoked", "internal", m.Internal, "mac", m.Client.MAC, "why", e.why)
	}
}

// lans returns the LANs as they are now, by interface.
func (g *gate) lans() map[string]netif.LAN {
	all := make(map[string]netif.LAN)
	for _, l := range g.network.roles.Load().LAN {
		all[l.Name] = l
	}
	return all
}
