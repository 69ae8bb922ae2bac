package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"portcullis/config"
	"portcullis/firewall/witness"
	"portcullis/internal/control"
	"portcullis/internal/dhcp"
	"portcullis/internal/gateway"
	"portcullis/internal/identify"
	"portcullis/internal/journal"
	"portcullis/internal/listeners"
	"portcullis/internal/logging"
	"portcullis/internal/netif"
	"portcullis/internal/presence"
	"portcullis/internal/reconcile"
	"portcullis/internal/restore"
	"portcullis/internal/wiring"
	"portcullis/pcp"
	"portcullis/policy"
	"portcullis/portmap"
	"portcullis/ssdp"
)

// closeTimeout bounds the last transaction of a clean stop.
const closeTimeout = 10 * time.Second

// Config is what a daemon needs.
type Config struct {
	config.Config
	Log     *slog.Logger
	Version string // for the owner
}

// ErrRestart, as the cause of a context's end, says that another run is about to start:
// what is open stays open.
var ErrRestart = errors.New("making way for the next run")

// Run is the daemon. It serves until ctx ends, and leaves nothing behind, or what its
// successor takes over.
func Run(ctx context.Context, c Config) error {
	return (&gate{cfg: c.Config, version: c.Version, log: c.Log, started: time.Now()}).run(ctx)
}

// restarts reports whether ctx has ended for a successor.
func restarts(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrRestart) }

// gate is the daemon: every room, wired.
type gate struct {
	cfg     config.Config
	version string
	log     *slog.Logger
	started time.Time

	kernel    *netif.Kernel
	journal   restore.Journal  // nil: nothing is kept
	last      journal.Restored // what it knew
	store     *restore.Store
	identity  *restore.Identity
	restore   *restore.Keeper
	network   *gateway.Gateway
	names     *dhcp.Reader
	firewall  wiring.Backend
	backend   string // its name
	engine    *portmap.Engine
	control   *control.Server
	listeners *listeners.Set
	upnp      *upnp        // nil: switched off
	ports     *portControl // nil: switched off
	hosts     *presence.Keeper
	follower  follower
	rules     *reconcile.Keeper
	witness   *witness.Witness // nil: who sends datagrams cannot be seen
	identify  *identify.Identifier
}

// run serves until ctx ends, and leaves nothing behind, or what its successor takes
// over. What faces the LAN ends first, then the engine, then the kernel is cleared.
func (g *gate) run(ctx context.Context) (err error) {
	now, roles, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer g.kernel.Close()
	if err = g.openState(); err != nil {
		return errors.Join(err, g.firewall.Close(ctx, true))
	}
	if g.journal != nil {
		defer func() { err = errors.Join(err, g.journal.Close()) }()
	}
	ours := false // what is in the kernel; before begin it is another run's
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, g.firewall.Close(closing, g.cfg.Firewall.KeepOnStop || restarts(ctx) || !ours))
		if g.witness != nil {
			err = errors.Join(err, g.witness.Close(closing))
		}
	}()
	only, err := g.claim()
	if err != nil {
		return err
	}
	if only != nil {
		defer only.Close()
	}
	if err := g.build(); err != nil {
		return err
	}
	socket, err := control.Listen(string(g.cfg.Control.Socket), string(g.cfg.Control.Group))
	if err != nil {
		return err
	}
	// Our ports come before the kernel: who finds them taken by another gate leaves
	// its mappings alone.
	g.network.Set(now, roles)
	if err := g.listeners.Follow(ctx, roles.LAN); err != nil {
		return errors.Join(err, g.listeners.Abandon(), socket.Close())
	}
	ours = true
	if err := g.begin(ctx, roles); err != nil {
		return errors.Join(err, g.listeners.Abandon(), socket.Close())
	}

	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	engine := new(errgroup.Group)
	engine.Go(func() error { return g.engine.Run(inner) })
	engine.Go(func() error { return g.restore.Run(inner) })
	engine.Go(func() error { return g.names.Run(inner) })
	engine.Go(func() error { return logging.NewEvents(g.log).Run(inner, g.engine.Watch(256)) })

	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { return g.control.Serve(frontCtx, socket) })
	front.Go(func() error { return g.serve(frontCtx) })
	front.Go(func() error { return g.hosts.Run(frontCtx) })
	front.Go(func() error { return g.portKeeper().Run(frontCtx) })
	front.Go(func() error { return g.rules.Run(frontCtx) })
	if g.ports != nil {
		g.ports.follow() // servers announce themselves when they begin
	}
	g.listeners.Serve(frontCtx)
	front.Go(func() error {
		return g.kernel.Watch(frontCtx, func(s netif.State) { g.changed(frontCtx, s) })
	})
	front.Go(func() error { return g.remind(frontCtx) })
	g.ready()
	err = front.Wait()
	stopInner()
	err = errors.Join(unlessStopped(ctx, err), unlessStopped(inner, engine.Wait()))
	if restarts(ctx) {
		g.log.Info("stopped for restart; mappings stay open")
	} else {
		g.log.Info("stopped")
	}
	return err
}

func (g *gate) ready() {
	g.log.Info("ready")
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		g.log.Warn("sd_notify failed", "err", err)
	}
}

// unlessStopped forgets the error that a context's end makes.
func unlessStopped(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// open reads the network and opens the firewall; a machine that cannot be a
// gate is told why here.
func (g *gate) open(ctx context.Context) (netif.State, netif.Roles, error) {
	var err error
	if g.kernel, err = netif.Open(g.log); err != nil {
		return netif.State{}, netif.Roles{}, fmt.Errorf("read the network: %w", err)
	}
	state, err := g.kernel.Read(ctx)
	if err != nil {
		g.kernel.Close()
		return state, netif.Roles{}, fmt.Errorf("read the network: %w", err)
	}
	roles, err := g.choose(state)
	for _, why := range roles.Why {
		g.log.Info("network", "choice", why)
	}
	if err != nil && !errors.Is(err, netif.ErrNoLAN) { // a LAN may come later
		g.kernel.Close()
		return state, roles, err
	}
	if forwards, err := g.kernel.Forwarding(); err == nil && !forwards {
		g.log.Warn("IPv4 forwarding is off; no mapped packet can pass (set net.ipv4.ip_forward=1)")
	}
	if g.firewall, g.backend, err = wiring.Firewall(ctx, g.log, g.cfg); err != nil {
		g.kernel.Close()
		return state, roles, err
	}
	g.openWitness(ctx)
	return state, roles, nil
}

// openState reads what the last run left.
func (g *gate) openState() (err error) {
	g.journal, g.last, err = restore.Open(journal.Config{Dir: string(g.cfg.State.Dir), Log: g.log, MaxMappings: g.cfg.Limits.Mappings})
	if err != nil {
		return err
	}
	g.store, g.identity = restore.NewStore(g.log, g.journal), restore.NewIdentity(g.log, g.journal, ssdp.NextBootID)
	return nil
}

// What the kernel lets pass of one machine in a second, more than is answered: a router
// may be many hosts, and a media server has much to announce.
const (
	leastOfMachine = 200
	hostsOfMachine = 4
)

// openWitness finds a way to see who sends datagrams. Without one NAT-PMP and PCP are
// not served: a source address alone would open any host's ports for its neighbours.
func (g *gate) openWitness(ctx context.Context) {
	var err error
	most := 0
	if own := g.cfg.Limits.RequestsPerSecond; own > 0 {
		most = max(leastOfMachine, hostsOfMachine*own)
	}
	if g.witness, err = witness.Open(ctx, most, ssdp.Group.Port(), pcp.Port); err == nil {
		if way, why := g.witness.Way(); why == nil {
			g.log.Info("identifying UDP senders", "by", way)
		} else {
			g.log.Info("identifying UDP senders", "by", way, "not_by_mark", why)
		}
	} else if g.cfg.PCP.NATPMP || g.cfg.PCP.PCP {
		g.log.Error("NAT-PMP and PCP are not served", "err", err)
	}
}

// build makes the rooms that need no network yet.
func (g *gate) build() error {
	decide, err := policy.New(wiring.Policy(g.cfg))
	if err != nil {
		return err
	}
	g.network = gateway.New(gateway.Config{Listening: g.kernel.Listening, Forwarded: g.firewall.Forwarded})
	g.names = dhcp.New(dhcp.Config{Files: wiring.Plain(g.cfg.LAN.Leases), Log: g.log})
	g.engine, err = portmap.NewEngine(portmap.EngineConfig{
		Policy: decide, Firewall: patient{g.firewall}, Gateway: g.network, Held: g.firewall.Held,
		Store: g.store, Recorded: g.store.Recorded,
		LeaseMax: g.cfg.Lease.Max, LeaseMin: g.cfg.Lease.Min, Strict: g.cfg.PCP.Nonce == config.NonceStrict,
	})
	if err != nil {
		return err
	}
	g.control, err = control.New(control.Config{
		Logger: g.log, Mapper: g.engine, Status: g.status, Traffic: g.traffic, Host: g.host, Group: string(g.cfg.Control.Group),
	})
	if err != nil {
		return err
	}
	g.hosts, g.rules = g.presence(), g.reconcile()
	g.restore = restore.New(restore.Config{
		Log: g.log, Journal: g.journal, Last: g.last, Identity: g.identity, Engine: g.engine, Revoke: g.revoke,
		Name: g.host, LANs: g.network.LANs, Look: g.hosts.Look,
	})
	g.last = journal.Restored{}
	g.identify = g.identifier()
	return g.buildServers()
}

func (g *gate) identifier() *identify.Identifier {
	cfg := identify.Config{
		Log: g.log, Kernel: g.kernel, LANs: g.network.LANs, Name: g.names.Name, Heard: g.hosts.Heard,
		SameDevice: g.cfg.Policy.SameDevice,
	}
	if g.witness != nil {
		if way, _ := g.witness.Way(); way != witness.PacketSocket {
			cfg.Suspect = g.rules.Suspect
		}
	}
	return identify.New(cfg)
}

func (g *gate) reconcile() *reconcile.Keeper {
	cfg := reconcile.Config{
		Log: g.log, Watch: g.firewall.Watch, Changed: g.network.RulesChanged, Settled: g.network.Look,
		Drifted: g.engine.Drifted,
		Audits:  []func(context.Context, bool) (string, error){g.firewall.Audit},
	}
	if g.witness != nil {
		cfg.Audits = append(cfg.Audits, func(ctx context.Context, _ bool) (string, error) { return g.witness.Audit(ctx) })
	}
	return reconcile.New(cfg)
}

func (g *gate) presence() *presence.Keeper {
	cfg := presence.Config{
		Log: g.log, Engine: g.engine, Kernel: g.kernel, LANs: g.network.LANs,
		LeaseMax: g.cfg.Lease.Max, Limit: g.cfg.Limits.Mappings,
	}
	if g.witness != nil {
		cfg.Know = g.witness.Know
	}
	return presence.New(cfg)
}

func (g *gate) portKeeper() *gateway.Keeper {
	return gateway.NewKeeper(gateway.KeeperConfig{
		Log: g.log, Gateway: g.network, Snapshot: g.engine.Snapshot, Revoke: g.revoke,
	})
}

// begin takes over the mappings of the last run: until the one transaction that
// does it, what that run left in the kernel is in force.
func (g *gate) begin(ctx context.Context, r netif.Roles) error {
	if err := g.firewall.Prepare(wiring.Facts(g.cfg, r)); err != nil {
		return err
	}
	if err := g.seeSenders(ctx, r); err != nil {
		return err
	}
	g.names.Look(time.Now())
	epochs, err := g.restore.Restore(ctx)
	if err == nil && g.ports != nil && epochs != (journal.Epochs{}) {
		g.ports.resume(epochs)
	}
	return err
}

// seeSenders makes the witness see the frames of the LANs.
func (g *gate) seeSenders(ctx context.Context, r netif.Roles) error {
	if g.witness == nil {
		return nil
	}
	names := make([]string, len(r.LAN))
	for i, l := range r.LAN {
		names[i] = l.Name
	}
	return g.witness.Follow(ctx, names)
}

func (g *gate) status() control.Status {
	wan, table := g.network.View().WAN(), g.engine.Snapshot()
	s := control.Status{
		Version: g.version,
		Uptime:  int64(time.Since(g.started) / time.Second),
		WAN:     control.WAN{Interface: wan.Name, Private: wan.Private, Up: wan.Up},
		LAN:     []control.LAN{},
		Denied:  g.engine.Denied(),
		Firewall: control.Firewall{
			Backend: g.backend, DriftRepaired: g.firewall.Repaired(),
		},
	}
	if g.witness != nil {
		way, _ := g.witness.Way()
		s.Firewall.Senders = string(way)
	}
	for range table.Pinholes() {
		s.Pinholes++
	}
	s.Mappings = table.Len() - s.Pinholes
	if wan.External.IsValid() {
		s.WAN.ExternalIP = wan.External.String()
	}
	for _, l := range g.network.Roles().LAN {
		lan := control.LAN{Interface: l.Name, Prefixes: []string{}}
		for _, p := range l.Prefixes {
			lan.Prefixes = append(lan.Prefixes, p.String())
		}
		s.LAN = append(s.LAN, lan)
	}
	return s
}

// host returns the name that a client has now.
func (g *gate) host(c *portmap.Client) string { return g.names.Name(c.MAC, c.Addr, time.Now()) }

// traffic returns what went through each mapping, as the kernel counts it.
func (g *gate) traffic(ctx context.Context) (func(portmap.Mapping) control.Traffic, error) {
	counters, err := g.firewall.Counters(ctx)
	if err != nil {
		return nil, err
	}
	return func(m portmap.Mapping) control.Traffic {
		c := counters[m.ID]
		return control.Traffic{Packets: c.Packets, Bytes: c.Bytes}
	}, nil
}

// packets returns how many packets have come in by a mapping.
func (g *gate) packets(ctx context.Context, m portmap.Mapping) (uint64, error) {
	c, err := g.firewall.Counter(ctx, m.ID)
	return c.Packets, err
}
