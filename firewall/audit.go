package firewall

import (
	"context"
	"errors"
)

const (
	ownersLost   = "our part of the accept chain was missing"
	compareTries = 5 // how often mappings are read that change meanwhile
)

// Audit compares the kernel with what it should hold, writes it anew where it
// differs, and returns what was wrong; "" is nothing. Rules, gateway facts and the
// accept chain are always compared, at a cost that does not depend on the
// mappings; with full the mappings are too, which takes as long as Counters.
func (d *Driver) Audit(ctx context.Context, full bool) (drift string, err error) {
	drift, err = d.auditRules(ctx)
	if err == nil && full && drift == "" {
		drift, err = d.auditEntries(ctx)
	}
	if errors.Is(err, ErrDrifted) { // it went while it was read
		drift, err = d.auditRules(ctx)
	}
	return drift, err
}

func (d *Driver) auditRules(ctx context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return "", ErrClosed
	}
	drift := "our table was not written"
	if d.whole {
		held, err := d.kernel.Read(ctx, Query{Rules: true})
		if err != nil {
			return "", err
		}
		drift = held.Drift
	}
	if drift != "" {
		return drift, d.repair(ctx, drift)
	}
	lost, err := d.ensureOwners(ctx)
	switch {
	case err != nil:
		return "the accept chain is missing", err
	case lost:
		return ownersLost, nil
	}
	return "", nil
}

// auditEntries compares the mappings. The kernel is read without the lock, and what comes of
// that counts only when nothing was written meanwhile; else it is read again.
func (d *Driver) auditEntries(ctx context.Context) (string, error) {
	for range compareTries {
		drift, compared, err := d.compareEntries(ctx)
		if compared || err != nil {
			return drift, err
		}
	}
	return "", ErrChanging
}

func (d *Driver) compareEntries(ctx context.Context) (drift string, compared bool, err error) {
	at := uint64(0)
	read, err := d.kernel.Read(ctx, Query{Holds: func(yield func(Entry) bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		at = d.writes
		d.state.AllEntries()(yield)
	}})
	if err != nil {
		return "", false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.writes != at {
		return "", d.closed, nil
	}
	if read.Drift != "" {
		return read.Drift, true, d.repair(ctx, read.Drift)
	}
	// A firewall that declares our sets itself (etc/nftables.d) and was restarted has
	// left them empty.
	copies, err := d.kernel.Read(ctx, Query{Copies: d.state.allHoles()})
	switch {
	case err != nil:
		return "", false, err
	case copies.Drift != "":
		return copies.Drift, true, d.repair(ctx, copies.Drift)
	case copies.Lost:
		return d.refillOwners(ctx)
	}
	return "", true, nil
}

// The methods below are called with the lock held.

func (d *Driver) refillOwners(ctx context.Context) (drift string, compared bool, err error) {
	if err := d.rewriteOwners(ctx); err != nil {
		return ownersLost, true, err
	}
	d.repaired++
	return "our mappings in the accept chain's table were changed", true, nil
}

// ensureOwners puts back what is missing or not as written in the owner's tables, and
// reports whether something was.
func (d *Driver) ensureOwners(ctx context.Context) (lost bool, err error) {
	held, err := d.kernel.Read(ctx, Query{OwnersTables: true})
	if err != nil || !held.Lost && !held.Lacking {
		return false, err
	}
	if err = d.rewriteOwners(ctx); held.Lost && err == nil {
		d.repaired++
	}
	return held.Lost, err
}

// repair writes everything anew.
func (d *Driver) repair(ctx context.Context, drift string) error {
	d.log.Debug("our table is missing or changed; rewriting it", "drift", drift)
	d.look(ctx)
	if err := d.install(ctx, d.state); err != nil {
		return err
	}
	d.repaired++
	return d.rewriteOwners(ctx)
}
