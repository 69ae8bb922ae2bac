package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"portcullis/config"
	"portcullis/internal/doctor"
	"portcullis/internal/netif"
	"portcullis/internal/sandbox"
	"portcullis/internal/slog"
	"portcullis/internal/warden"
	"portcullis/internal/wiring"
)

// Config is what a daemon needs.
type Config struct {
	config.Config
	Log     *slog.Logger
	Version string // for the owner
	Source  Source // of Config
	// Load reads the configuration again; Hangup has it done, as the owner can by the
	// control socket.
	Load   func() (config.Config, Source, error)
	Hangup <-chan os.Signal
	Waits  net.Conn // who is told that it serves; nil: NOTIFY_SOCKET says
}

// Source is where a configuration came from; zero: there is no file, and the defaults hold.
type Source struct {
	File string
	Sum  config.Sum
}

// ErrRestart, as the cause of a context's end, says that another run is about to start:
// what is open stays open.
var ErrRestart = errors.New("making way for the next run")

// restarts reports whether ctx has ended for a successor.
func restarts(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrRestart) }

// Run is the daemon. It serves until ctx ends, and leaves nothing behind, or what its
// successor takes over. The sandbox closes before there is a front, and so before a packet
// is read. What faces the LAN ends first, then the engine, then the kernel is cleared.
func Run(ctx context.Context, c Config) (err error) {
	var single error
	c.Sandbox.Mode, single = mode(c.Log, c.Sandbox.Mode)
	limit, by := sandbox.TaskLimit()
	if few := fewTasks(c.Sandbox.Mode, limit, by); few != "" {
		c.Log.Warn("too few processes are allowed", "warning", few)
	}
	kernel, err := netif.Open(c.Log)
	if err != nil {
		return fmt.Errorf("read the network: %w", err)
	}
	defer kernel.Close()
	follower := newFollower(followerConfig{
		Log: c.Log, Network: wiring.Network(c.Config),
		Strays: func(s netif.State, r netif.Roles) []doctor.Stray { return doctor.Strays(kernel, s, r, doctor.Marks{}) },
	})
	waits := findSupervisor(c.Log, c.Waits)
	follower.cfg.Status = waits.status
	state, roles, err := network(ctx, c.Log, kernel, follower)
	if err != nil {
		return err
	}
	warnUnheard(ctx, c, roles)
	turn := newTurn(c)
	defer func() { err = errors.Join(err, turn.Close()) }()
	w, err := warden.Open(ctx, warden.Config{Config: c.Config, Log: c.Log, Version: c.Version, Kernel: kernel, NotSplit: single, Published: published(c.Log, turn)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close(ctx, c.Firewall.KeepOnStop || restarts(ctx))) }()
	score := openScore(c)
	reload := newReloader(c, w, follower, waits)
	w.Reloads(reload.reload, reload.status)
	w.Seal()
	f, err := newHalf(c, kernel, w, uuidOf(c.Log, c.UPnP.UUID, state, w.UUID()), score, turn, follower.failed)
	if err != nil {
		return err
	}
	follower.cfg.Warden, follower.cfg.Front = w.Follow, f.Follow
	// Our ports come before the kernel: who finds them taken by another daemon leaves
	// its mappings alone.
	w.Learn(state, roles)
	if err := f.Open(ctx, roles.LAN); err != nil {
		return errors.Join(err, f.Abandon())
	}
	four, six, err := w.Begin(ctx)
	if err != nil {
		return errors.Join(err, f.Abandon())
	}
	if !four.IsZero() && !six.IsZero() {
		f.Resume(four, six)
	}
	follower.status(roles)
	return serve(ctx, c, kernel, w, f, follower, reload, waits)
}

// network reads it; a machine that cannot be a gateway is told why here.
func network(ctx context.Context, log *slog.Logger, kernel *netif.Kernel, f *follower) (netif.State, netif.Roles, error) {
	state, err := kernel.Read(ctx)
	if err != nil {
		return state, netif.Roles{}, fmt.Errorf("read the network: %w", err)
	}
	roles, err := f.choose(state)
	for _, why := range roles.Why {
		log.Info("interface chosen", "why", why)
	}
	if err != nil && !errors.Is(err, netif.ErrNoLAN) { // a LAN may come later
		return state, roles, err
	}
	if forwards, err := kernel.Forwarding(); err == nil && !forwards {
		log.Warn("IPv4 forwarding is off; no mapped packet can pass (set net.ipv4.ip_forward=1)")
	}
	return state, roles, nil
}

// lookTime is how long the start may take longer for a warning.
const lookTime = 2 * time.Second

// warnUnheard tells where the host's own firewall drops what devices ask, which nobody would
// find out from a daemon that hears nothing.
func warnUnheard(ctx context.Context, c Config, roles netif.Roles) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	unheard, err := doctor.Unheard(ctx, c.Config, roles)
	if err != nil {
		c.Log.Debug("cannot tell whether devices reach the daemon", "err", err)
	}
	for _, u := range unheard {
		c.Log.Warn("devices may not be served", "warning", u.String()+"; `portcullis doctor` prints the rules that let it pass")
	}
}

// serve runs both halves until ctx ends, the engine longest.
func serve(ctx context.Context, c Config, kernel *netif.Kernel, w *warden.Warden, f half, follower *follower, reload *reloader, waits *supervisor) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	engine := make(chan error, 1)
	go func() { engine <- w.Run(inner) }()
	w.Settle(ctx)

	all, outer := errgroup.WithContext(ctx)
	all.Go(func() error { return w.Serve(outer) })
	sandbox.ShareProcessors() // now that mappings, perhaps many, are restored
	f.Serve(outer)
	all.Go(func() error { return f.Run(outer) })
	all.Go(func() error {
		return kernel.Watch(outer, func(s netif.State) { follower.changed(outer, s) })
	})
	all.Go(func() error { return follower.remind(outer) })
	all.Go(func() error { return reload.run(outer, c.Hangup) })
	all.Go(func() error { return waits.keepAlive(outer, w.Alive) })
	c.Log.Info("ready")
	waits.ready()
	defer context.AfterFunc(outer, waits.stopping)()
	err := all.Wait()
	stop()
	err = errors.Join(unlessStopped(ctx, err), unlessStopped(inner, <-engine))
	if restarts(ctx) {
		c.Log.Info("stopped for restart; mappings stay open")
	} else {
		c.Log.Info("stopped")
	}
	return err
}

// unlessStopped forgets the error that a context's end makes.
func unlessStopped(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}
