package warden

import (
	"context"
	"time"

	"portcullis/config"
	"portcullis/internal/leasefile"
	"portcullis/internal/wiring"
	"portcullis/portmap"
)

// listingTimeout bounds the removal of what is listed. With closeTimeout it is less than
// service managers wait for our end.
const listingTimeout = 4 * time.Second

// openShown makes what shows the mappings to programs that were made for miniupnpd, if the
// owner wants that.
func (w *Warden) openShown() {
	c := w.cfg.Miniupnpd
	cfg := leasefile.Config{
		Log: w.log, File: string(c.LeaseFile), File6: string(c.LeaseFile6), System: config.InRun,
		Snapshot: w.engine.Snapshot, Watch: w.engine.Watch,
		Waiting: func() []portmap.Mapping { return w.restore.Waiting() }, // it is not there yet
		Delete: func(ctx context.Context, id uint64) error {
			// First where it waits: from there it may get into the table meanwhile.
			if err := w.restore.End(ctx, id); err != nil {
				return err
			}
			_, err := w.engine.Unmap(ctx, portmap.Selector{Anybody: true, ID: id})
			if portmap.ReasonOf(err) == portmap.NoSuchMapping {
				return nil
			}
			return err
		},
	}
	if w.listing = wiring.Listed(w.log, w.cfg); w.listing != nil {
		cfg.Show = func(ctx context.Context, all []portmap.Mapping) {
			w.listing.Show(ctx, w.network.Roles().WAN.Index, all)
		}
	}
	if w.listing != nil || cfg.File != "" || cfg.File6 != "" {
		w.leases = leasefile.New(cfg)
	}
}

// Settle waits, after Run has been started and before anybody is served, until what the owner
// deleted while no daemon ran is closed again.
func (w *Warden) Settle(ctx context.Context) {
	if w.leases == nil {
		return
	}
	select {
	case <-w.leases.Begun():
	case <-ctx.Done():
	}
}

// auditListing looks at what is listed when others have changed rules. What is missing there
// is put back without a word: nothing depended on it, so that nothing that is open waits for
// the programs which that may need.
func (w *Warden) auditListing(ctx context.Context, _ bool) (string, error) {
	if w.auditing.CompareAndSwap(false, true) {
		go func() {
			defer w.auditing.Store(false)
			w.listing.Audit(ctx)
		}()
	}
	return "", nil
}

// closeListing removes what is listed, in a time of its own.
func (w *Warden) closeListing(ctx context.Context, keep bool) error {
	if w.listing == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listingTimeout)
	defer cancel()
	return w.listing.Close(ctx, keep)
}
