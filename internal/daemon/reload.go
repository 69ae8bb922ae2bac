package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"portcullis/config"
	"portcullis/internal/control"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/internal/warden"
	"portcullis/internal/wiring"
	"portcullis/portmap"
)

// reloader has a running daemon take over what changes in its configuration.
type reloader struct {
	log        *slog.Logger
	load       func() (config.Config, Source, error)
	warden     *warden.Warden
	follower   *follower
	supervisor *supervisor

	turn sync.Mutex // one at a time reloads

	mu      sync.Mutex    // guards what follows
	running config.Config // what holds
	source  Source        // what was read last
	since   time.Time     // when
	restart []string      // its keys that do not hold yet
}

func newReloader(c Config, w *warden.Warden, f *follower, s *supervisor) *reloader {
	return &reloader{
		log: c.Log, load: c.Load, warden: w, follower: f, supervisor: s,
		running: c.Config, source: c.Source, since: time.Now(), restart: []string{},
	}
}

// run reloads at each signal, until ctx ends.
func (r *reloader) run(ctx context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-hangup:
			_, _ = r.reload(ctx) // it is logged
		}
	}
}

// status returns what the daemon runs.
func (r *reloader) status() control.Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := control.Configuration{File: r.source.File, Since: r.since.UTC().Format(time.RFC3339), Restart: r.restart}
	if s.File != "" {
		s.SHA256 = r.source.Sum.String()
	}
	return s
}

// reload reads the configuration, and has its live keys hold. A configuration that is not
// valid, or that the interfaces of this machine do not fit, changes nothing.
func (r *reloader) reload(ctx context.Context) (control.Reloaded, error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	r.supervisor.reloading()
	defer r.supervisor.ready()
	done, err := r.adopt(ctx)
	if err != nil {
		r.log.Error("cannot reload the configuration", "err", err)
		return done, err
	}
	r.log.Info("configuration reloaded", "file", done.File, "changed", done.Changed, "revoked", len(done.Revoked))
	if len(done.Restart) > 0 {
		r.log.Warn("restart Portcullis for these keys", "keys", done.Restart)
	}
	return done, nil
}

// adopt is reload; turn is held.
func (r *reloader) adopt(ctx context.Context) (control.Reloaded, error) {
	if r.load == nil {
		return control.Reloaded{}, errors.New("there is no file to read")
	}
	file, source, err := r.load()
	if err != nil {
		return control.Reloaded{}, fmt.Errorf("the configuration stays as it is: %w", err)
	}
	next, live, restart := config.Adopt(r.running, file)
	network := wiring.Network(next)
	if err := r.follower.try(network); err != nil {
		return control.Reloaded{}, fmt.Errorf("the configuration stays as it is: the interfaces do not fit it: %w", err)
	}
	var dropped []portmap.Dropped
	r.follower.set(ctx, network, func() { dropped, err = r.warden.Adopt(ctx, next) })
	done := control.Reloaded{File: source.File, Changed: orEmpty(live), Restart: orEmpty(restart), Revoked: control.NewRevoked(dropped)}
	r.mu.Lock()
	r.running, r.source, r.since, r.restart = next, source, time.Now(), done.Restart
	r.mu.Unlock()
	if err != nil {
		return done, fmt.Errorf("the new configuration holds, but not all of what it does not allow could be closed; trying again until it is: %w", err)
	}
	return done, nil
}

// orEmpty returns keys, never nil: JSON has a list.
func orEmpty(keys []string) []string { return append([]string{}, keys...) }

// try returns an error where the network as it was read last does not fit these
// settings. A LAN may come later.
func (f *follower) try(set netif.Settings) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := netif.Choose(f.state, f.settings(set))
	if errors.Is(err, netif.ErrNoLAN) {
		return nil
	}
	return err
}

// set has other settings hold, and follows the network by them. It calls adopt when the
// warden has, and before the front does: one that is owned, or hangs, takes its time.
func (f *follower) set(ctx context.Context, set netif.Settings, adopt func()) {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	f.cfg.Network = set
	s := f.state
	f.mu.Unlock()
	f.follow(ctx, s, adopt)
}
