package warden

import (
	"context"

	"portcullis/portmap"
)

// dropForeign ends the pinholes of addresses that are not on their LAN any more.
func (w *Warden) dropForeign(ctx context.Context) {
	lans := w.LANs()
	for m := range w.engine.Snapshot().Pinholes() {
		if m.Client.Owner() {
			continue // it is his to close; while its network is not there it leads nowhere
		}
		if l, served := lans[m.Client.Interface]; !served || !l.OnLink(m.Internal.Addr()) {
			w.revoke(ctx, m, portmap.Revoked, "its network is not on the LAN any more")
		}
	}
}

// revoke ends a mapping that nobody asked to end, and says why.
func (w *Warden) revoke(ctx context.Context, m portmap.Mapping, reason portmap.Reason, why string) {
	err := w.engine.Revoke(ctx, m, reason)
	switch {
	case portmap.ReasonOf(err) == portmap.NoSuchMapping || ctx.Err() != nil:
	case err != nil:
		w.log.Error("cannot revoke a mapping", "internal", m.Internal, "err", err)
	default:
		w.log.Info("mapping revoked", "internal", m.Internal, "mac", m.Client.MAC, "why", why)
	}
}
