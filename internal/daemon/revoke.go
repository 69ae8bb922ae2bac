package daemon

import (
	"context"

	"portcullis/portmap"
)

// dropForeign ends the pinholes of addresses that are not on their LAN any more.
func (g *gate) dropForeign(ctx context.Context) {
	lans := g.network.LANs()
	for m := range g.engine.Snapshot().Pinholes() {
		if l, served := lans[m.Client.Interface]; !served || !l.OnLink(m.Internal.Addr()) {
			g.revoke(ctx, m, portmap.Revoked, "its network is not on the LAN any more")
		}
	}
}

// revoke ends a mapping that nobody asked to end, and says why.
func (g *gate) revoke(ctx context.Context, m portmap.Mapping, reason portmap.Reason, why string) {
	err := g.engine.Revoke(ctx, m, reason)
	switch {
	case portmap.ReasonOf(err) == portmap.NoSuchMapping || ctx.Err() != nil:
	case err != nil:
		g.log.Error("cannot revoke a mapping", "internal", m.Internal, "err", err)
	default:
		g.log.Info("mapping revoked", "internal", m.Internal, "mac", m.Client.MAC, "why", why)
	}
}
