package warden

import (
	"context"
	"errors"
	"slices"
	"time"

	"portcullis/config"
	"portcullis/internal/control"
	"portcullis/internal/sandbox"
	"portcullis/internal/wiring"
	"portcullis/policy"
	"portcullis/portmap"
)

// Reloads sets what reads the configuration again, and what says which one there is. It
// must be called before Serve.
func (w *Warden) Reloads(reload func(context.Context) (control.Reloaded, error), loaded func() control.Configuration) {
	w.reload, w.loaded = reload, loaded
}

func (w *Warden) reloads(ctx context.Context) (control.Reloaded, error) {
	if w.reload == nil {
		return control.Reloaded{}, errors.New("this daemon cannot read its configuration again; restart it")
	}
	return w.reload(ctx)
}

// adoptEvery is how long a Warden waits before it tries again to close what the
// configuration does not allow.
const adoptEvery = 10 * time.Second

// Adopt has the live keys of a configuration hold, for what is open too, and returns what
// it revoked. Follow comes before it, with the roles that the configuration gives. A policy
// that is not valid changes nothing; with any other error the configuration holds, and
// what it does not allow and is open still is tried again until it is closed.
func (w *Warden) Adopt(ctx context.Context, c config.Config) ([]portmap.Dropped, error) {
	decide, err := policy.New(wiring.Policy(c))
	if err != nil {
		return nil, err
	}
	w.terms.Store(&c)
	sandbox.LimitWarden(c.Limits.Mappings)
	if w.journal != nil {
		w.journal.Resize(c.Limits.Mappings)
	}
	revoked, err := w.adopt(ctx, c, decide)
	w.approvals.Reconsider(func(r portmap.Request) bool { return w.stillAsks(ctx, r) })
	w.hasRead()
	w.hosts.Look() // an endless lease may be shorter now
	if err != nil {
		w.adoptLater()
	}
	return revoked, err
}

// stillAsks reports whether the owner is asked about a request by now. Where something else stands
// in the way, as a WAN that is down, nothing else is known.
func (w *Warden) stillAsks(ctx context.Context, r portmap.Request) bool {
	r.Lifetime = time.Hour // any
	v, err := w.engine.Explain(ctx, r)
	return err != nil || v.Action == portmap.Ask || v.Err != nil && portmap.ReasonOf(v.Err) != v.Reason
}

// adopt has the engine go by a configuration.
func (w *Warden) adopt(ctx context.Context, c config.Config, decide portmap.Policy) ([]portmap.Dropped, error) {
	w.adopting.Lock()
	defer w.adopting.Unlock()
	revoked, err := w.engine.Adopt(ctx, portmap.Terms{Policy: decide, LeaseMax: c.Lease.Max, LeaseMin: c.Lease.Min})
	more, failed := w.dropUnserved(ctx, c.LAN.Interfaces)
	return append(revoked, more...), errors.Join(err, failed)
}

// adoptLater has what could not be closed be tried again.
func (w *Warden) adoptLater() {
	select {
	case w.undone <- struct{}{}:
	default:
	}
}

// adoptAgain tries again until ctx ends.
func (w *Warden) adoptAgain(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.undone:
		}
		for failed := true; failed; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(adoptEvery):
			}
			c := w.now()
			decide, err := policy.New(wiring.Policy(c))
			if err == nil {
				_, err = w.adopt(ctx, c, decide) // each end is logged
			}
			failed = err != nil
		}
		w.log.Info("what the configuration does not allow is closed")
	}
}

// dropUnserved revokes the mappings of interfaces that the configuration does not name, where
// it names some. One that is found by itself, and is away, may come back.
func (w *Warden) dropUnserved(ctx context.Context, named []config.Interface) (revoked []portmap.Dropped, err error) {
	if len(named) == 0 {
		return nil, nil
	}
	for m := range w.engine.Snapshot().All() {
		name := m.Client.Interface
		if slices.Contains(named, config.Interface(name)) || m.Client.Via == portmap.ViaOwner {
			continue
		}
		switch err := w.engine.Revoke(ctx, m, portmap.Revoked); {
		case portmap.ReasonOf(err) == portmap.NoSuchMapping:
		case err != nil:
			return revoked, err
		default:
			why := &portmap.Error{Reason: portmap.OffLink, Detail: name + " is not in lan.interfaces any more"}
			revoked = append(revoked, portmap.Dropped{Mapping: m, Err: why})
		}
	}
	return revoked, nil
}

// now returns the configuration that holds.
func (w *Warden) now() config.Config {
	if c := w.terms.Load(); c != nil {
		return *c
	}
	return w.cfg
}

// Alive returns nil while the engine takes requests.
func (w *Warden) Alive(ctx context.Context) error { return w.engine.Alive(ctx) }
