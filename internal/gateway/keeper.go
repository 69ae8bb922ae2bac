package gateway

import (
	"context"
	"log/slog"
	"time"

	"portcullis/portmap"
)

// portsEvery is how often the gateway's own services, and what its owner forwards, are
// looked for on mapped ports (abuse case B8: at a grant and periodically).
const portsEvery = 10 * time.Second

// KeeperConfig is what a Keeper needs; every field must be set.
type KeeperConfig struct {
	Log      *slog.Logger
	Gateway  portmap.Gateway
	Snapshot func() *portmap.Table
	Revoke   func(ctx context.Context, m portmap.Mapping, reason portmap.Reason, why string)
}

// Keeper ends mappings whose external port the gateway or its owner uses now. A
// pinhole is on the host's own address, where the gateway has no ports.
type Keeper struct {
	cfg KeeperConfig
	// doubtful are UDP ports that were in use at the last look. A resolver's questions
	// leave from random ports for a moment; what is there twice is a service.
	doubtful map[uint16]bool
	failing  bool
}

// NewKeeper returns a Keeper. Run must be called.
func NewKeeper(cfg KeeperConfig) *Keeper { return &Keeper{cfg: cfg} }

// Run looks until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(portsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			k.look(ctx)
		}
	}
}

func (k *Keeper) look(ctx context.Context) {
	if k.cfg.Snapshot().Len() == 0 {
		return
	}
	k.cfg.Gateway.Look(ctx)
	view := k.cfg.Gateway.View()
	if err := view.InUseErr; err != nil {
		if !k.failing && ctx.Err() == nil {
			k.cfg.Log.Warn("cannot check whether mapped ports are in use", "err", err)
		}
		k.failing = true
		return
	}
	k.failing = false
	before := k.doubtful
	k.doubtful = make(map[uint16]bool)
	for m := range k.cfg.Snapshot().All() {
		if m.Kind != portmap.NAT4 {
			return // pinholes come last
		}
		port := m.ExternalPort
		by, used := portmap.InUse(view.InUse, m.Transport, port)
		switch {
		case ctx.Err() != nil:
			return
		case !used:
		case m.Transport == portmap.UDP && !before[port]:
			k.doubtful[port] = true
		default:
			k.cfg.Log.Warn("mapped port is in use; ending its mapping", "protocol", m.Transport, "external_port", port,
				"internal", m.Internal, "mac", m.Client.MAC, "why", by)
			k.cfg.Revoke(ctx, m, portmap.PortInUse, by)
		}
	}
}
