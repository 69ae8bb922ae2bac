package warden

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/internal/control"
	"portcullis/internal/logging"
	"portcullis/internal/netif"
	"portcullis/internal/sandbox"
	"portcullis/internal/wiring"
	"portcullis/portmap"
)

// Learn takes over what the network looks like, and leaves the kernel alone.
func (w *Warden) Learn(s netif.State, r netif.Roles) { w.network.Set(s, r) }

// Begin takes over the mappings of the last run: until the one transaction that
// does it, what that run left in the kernel is in force. It returns when the epochs began
// that go on, zero where they do not.
func (w *Warden) Begin(ctx context.Context) (four, six time.Time, err error) {
	defer sandbox.Spare()()
	w.ours = true
	r := w.network.Roles()
	if err := w.firewall.Prepare(w.facts(r)); err != nil {
		return four, six, err
	}
	if err := w.seeSenders(ctx, r); err != nil {
		return four, six, err
	}
	w.names.Look(time.Now())
	epochs, err := w.restore.Restore(ctx)
	return epochs.V4, epochs.V6, err
}

// facts returns what the firewall is to know.
func (w *Warden) facts(r netif.Roles) firewall.Facts {
	f := wiring.Facts(w.now(), r)
	if w.cfg.Sandbox.Mode == config.SandboxSplit {
		f.FrontUID = cmp.Or(w.user.UID, uint32(os.Geteuid())) // #nosec G115 -- the kernel's are
	}
	return f
}

// Run is the engine and what is kept of its work, until ctx ends, after Begin. It must
// outlive Serve and all who ask.
func (w *Warden) Run(ctx context.Context) error {
	var all errgroup.Group
	all.Go(func() error { return w.engine.Run(ctx) })
	all.Go(func() error { return w.restore.Run(ctx) })
	all.Go(func() error { return w.names.Run(ctx) })
	all.Go(func() error { return logging.NewEvents(w.log).Run(ctx, w.engine.Watch(256)) })
	all.Go(func() error { return w.refusals.Run(ctx, w.engine.Watch(256)) })
	all.Go(func() error { return w.approvals.Run(ctx, w.engine.Watch(256)) })
	if w.leases != nil {
		all.Go(func() error { return w.leases.Run(ctx) })
	}
	if w.hook != nil {
		all.Go(func() error { return w.hook.Run(ctx) })
		all.Go(func() error { return w.runHook(ctx) })
	}
	return all.Wait()
}

// Serve answers the administrator, and looks after hosts, rules and ports in use, until
// ctx ends.
func (w *Warden) Serve(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return w.control.Serve(ctx, w.socket) })
	if w.numbers != nil {
		open := control.NewMetrics(control.Config{Logger: w.log, Metrics: w.Metrics})
		all.Go(func() error { return open.Serve(ctx, w.numbers) })
	}
	all.Go(func() error { return w.hosts.Run(ctx) })
	all.Go(func() error { return w.ports.Run(ctx) })
	all.Go(func() error { return w.rules.Run(ctx) })
	all.Go(func() error { return w.adoptAgain(ctx) })
	return all.Wait()
}

// Follow takes in what the network looks like now: the firewall's rules, the pinholes of
// addresses that are gone, and the mappings that have waited for a LAN.
func (w *Warden) Follow(ctx context.Context, s netif.State, r netif.Roles) {
	w.Learn(s, r)
	err := errors.Join(unlessChain(w.firewall.Configure(ctx, w.facts(r))), w.seeSenders(ctx, r))
	if err != nil && ctx.Err() == nil {
		w.log.Error("cannot update the firewall for the network", "err", err)
	}
	w.dropForeign(ctx)
	w.restore.Readmit(ctx)
	if w.leases != nil {
		w.leases.Changed() // the WAN may be another interface
	}
	w.hasRead()
	if _, err := w.engine.Review(ctx); err != nil && ctx.Err() == nil { // each end is logged
		w.log.Error("not all of what the configuration does not allow could be closed; trying again", "err", err)
		w.adoptLater()
	}
}

// seeSenders makes the witness see the frames of the LANs.
func (w *Warden) seeSenders(ctx context.Context, r netif.Roles) error {
	if w.witness == nil {
		return nil
	}
	names := make([]string, len(r.LAN))
	for i, l := range r.LAN {
		names[i] = l.Name
	}
	return w.witness.Follow(ctx, names)
}

// patient is the firewall as the engine sees it: an accept chain that is not there yet
// is no reason for a start to fail. All else is in force, the backend has told
// the owner, and its audit puts our part in as soon as the chain is there.
type patient struct{ portmap.Firewall }

// Replace implements portmap.Firewall.
func (p patient) Replace(ctx context.Context, want []portmap.Mapping) error {
	return unlessChain(p.Firewall.Replace(ctx, want))
}

// unlessChain forgets the error that an accept chain is not there.
func unlessChain(err error) error {
	var chain *firewall.ChainError
	if errors.As(err, &chain) {
		return nil
	}
	return err
}
