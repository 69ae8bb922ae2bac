package gateway

import (
	"context"
	"time"

	"portcullis/internal/pace"
	"portcullis/internal/slog"
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
	cfg    KeeperConfig
	mapped chan struct{} // holds one: there are perhaps mappings again
	// doubtful are UDP ports that were in use at the last look. A resolver's questions
	// leave from random ports for a moment; what is there twice is a service.
	doubtful map[uint16]bool
	failing  bool
}

// NewKeeper returns a Keeper. Run must be called.
func NewKeeper(cfg KeeperConfig) *Keeper {
	return &Keeper{cfg: cfg, mapped: make(chan struct{}, 1)}
}

// Mapped says that a mapping is about to be there. It never waits, and is safe for
// concurrent use.
func (k *Keeper) Mapped() {
	select {
	case k.mapped <- struct{}{}:
	default:
	}
}

// Run looks until ctx ends, for as long as anything is mapped.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		if k.cfg.Snapshot().Len() == 0 {
			// What was said before it was there is still to be taken: nothing is missed.
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-k.mapped:
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pace.Until(portsEvery)):
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
