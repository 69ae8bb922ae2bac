package warden

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"portcullis/config"
	"portcullis/firewall/witness"
	"portcullis/internal/approvals"
	"portcullis/internal/control"
	"portcullis/internal/dhcp"
	"portcullis/internal/gateway"
	"portcullis/internal/hook"
	"portcullis/internal/journal"
	"portcullis/internal/leasefile"
	"portcullis/internal/metrics"
	"portcullis/internal/netif"
	"portcullis/internal/presence"
	"portcullis/internal/reconcile"
	"portcullis/internal/refusals"
	"portcullis/internal/restore"
	"portcullis/internal/sandbox"
	"portcullis/internal/slog"
	"portcullis/internal/sockets"
	"portcullis/internal/wiring"
	"portcullis/pcp"
	"portcullis/policy"
	"portcullis/portmap"
	"portcullis/ssdp"
)

// closeTimeout bounds the last transaction of a clean stop.
const closeTimeout = 10 * time.Second

// Kernel is what a Warden reads of the machine; netif.Kernel is one.
type Kernel interface {
	presence.Kernel
	Listening(context.Context) (netif.Ports, error)
	NextHop(from, to netip.Addr) (ifindex int, next netip.Addr, err error)
}

// Config is what a Warden needs.
type Config struct {
	config.Config
	Log     *slog.Logger
	Version string // for the owner
	Kernel  Kernel
	// NotSplit is why Config has one process where the owner wants two; nil: he has what he
	// wants.
	NotSplit error
	// Published is of portmap.EngineConfig; it may be nil.
	Published func()
}

// Warden decides, and keeps the kernel as it has decided. What is exported for the front
// is safe for concurrent use.
type Warden struct {
	cfg    config.Config                 // at the start
	terms  atomic.Pointer[config.Config] // as it is now; nil: still cfg
	undone chan struct{}                 // holds one: something is open that terms do not allow

	adopting sync.Mutex // held while the engine is told of terms
	log      *slog.Logger
	version  string
	started  time.Time
	kernel   Kernel

	portmap.Reader // of the engine, for the front
	published      func()

	engine   *portmap.Engine
	firewall wiring.Backend
	backend  string           // its name
	witness  *witness.Witness // nil: who sends datagrams cannot be seen
	journal  restore.Journal  // nil: nothing is kept
	store    *restore.Store
	identity *restore.Identity
	claim    *net.UnixListener // nil: another user's program has it
	lock     *os.File          // a copy of it for the front; nil: there is none
	network  *gateway.Gateway
	names    *dhcp.Reader
	control  *control.Server
	socket   net.Listener // of control
	numbers  net.Listener // where the metrics are read; nil: nowhere but there
	hosts    *presence.Keeper
	rules    *reconcile.Keeper
	ports    *gateway.Keeper
	restore  *restore.Keeper
	dials    *rate.Limiter // to subscribers of events
	dialing  chan struct{} // has one for each that is made
	opening  chan struct{} // likewise of other sockets

	// silent is witness.Silent; nil: nobody knows.
	silent      func(ctx context.Context, ifindex int, mac [6]byte, host netip.Addr) (bool, error)
	durations   metrics.Histogram // of requests for mappings
	told        numbersTold
	spare       spare
	unseen      atomic.Uint64 // requests in the name of a host that has not sent any
	subscribers subscribers
	refusals    refusals.Book
	approvals   *approvals.Keeper
	vendors     vendors
	leases      *leasefile.Keeper // nil: there is nothing to show
	listing     wiring.Listing    // nil: nothing is listed
	auditing    atomic.Bool       // the listing is being looked at
	hook        *hook.Hook        // nil: there is none
	hookFailed  error             // why there is none that the owner wants
	alerts      alerts            // of what only an owned front does

	reload  func(context.Context) (control.Reloaded, error) // nil: it cannot be
	loaded  func() control.Configuration                    // nil: nobody says
	sandbox control.Sandbox                                 // set by Seal
	user    sandbox.User                                    // of the front, if it has its own
	front   func() Front                                    // nil: it is no process of its own

	notSplit error // see Config

	ours bool // what is in the kernel; before Begin it is another run's
}

// Open opens the firewall and the state directory, and claims to be the only one here.
// The kernel's rules are as they were.
func Open(ctx context.Context, cfg Config) (_ *Warden, err error) {
	w := &Warden{cfg: cfg.Config, notSplit: cfg.NotSplit, log: cfg.Log, version: cfg.Version, kernel: cfg.Kernel, published: cfg.Published, started: time.Now(),
		spare: spare{give: debug.FreeOSMemory},
		dials: newDials(), dialing: make(chan struct{}, dialAtOnce), opening: make(chan struct{}, 1), undone: make(chan struct{}, 1)}
	if w.firewall, w.backend, err = wiring.Firewall(ctx, w.log, w.cfg); err != nil {
		return nil, err
	}
	w.openWitness(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close(ctx, true))
		}
	}()
	var last journal.Restored
	w.journal, last, err = restore.Open(journal.Config{Dir: string(w.cfg.State.Dir), Log: w.log, MaxMappings: w.cfg.Limits.Mappings})
	if err != nil {
		return nil, err
	}
	w.store, w.identity = restore.NewStore(w.log, w.journal), restore.NewIdentity(w.log, w.journal, ssdp.NextBootID)
	if err = w.claimMachine(); err != nil {
		return nil, err
	}
	if err = w.build(last); err != nil {
		return nil, err
	}
	if w.socket, err = control.Listen(string(w.cfg.Control.Socket), string(w.cfg.Control.Group)); err != nil {
		return w, err
	}
	if at := w.cfg.Metrics.Listen; at.IsValid() {
		if w.numbers, err = sockets.ListenTCP(ctx, at.AddrPort, nil); err != nil {
			return w, fmt.Errorf("metrics.listen: %w", err)
		}
	}
	return w, nil
}

// Close ends what Open began, after Serve and Run. What is in the kernel stays there if
// keep is set, or if it is another run's.
func (w *Warden) Close(ctx context.Context, keep bool) error {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	var err error
	for _, l := range []net.Listener{w.socket, w.numbers} {
		if l == nil {
			continue
		}
		if e := l.Close(); !errors.Is(e, net.ErrClosed) { // it was served
			err = errors.Join(err, e)
		}
	}
	// What is open comes first: the listing may wait for programs, and for their lock.
	err = errors.Join(err, w.closeHook(), w.firewall.Close(closing, keep || !w.ours), w.closeListing(ctx, keep || !w.ours))
	if w.witness != nil {
		err = errors.Join(err, w.witness.Close(closing))
	}
	if w.store != nil {
		w.store.Flush()
		w.identity.Flush()
	}
	if w.journal != nil {
		err = errors.Join(err, w.journal.Close())
	}
	if w.lock != nil {
		err = errors.Join(err, w.lock.Close())
	}
	if w.claim != nil { // last: nobody else begins before
		err = errors.Join(err, w.claim.Close())
	}
	return err
}

// claimMachine takes the instance lock, and a copy of it for a front that is a process. Who
// that is does not depend on the lock, which another user can hold.
func (w *Warden) claimMachine() (err error) {
	split := w.cfg.Sandbox.Mode == config.SandboxSplit
	if split {
		w.user = sandbox.FrontUser()
	}
	if w.claim, err = claim(w.log); err != nil || w.claim == nil || !split {
		return err
	}
	w.lock, err = w.claim.File()
	return err
}

// What the kernel lets pass of one machine in a second, more than is answered: a router
// may be many hosts, and a media server has much to announce.
const (
	leastOfMachine = 200
	hostsOfMachine = 4
)

// openWitness finds a way to see who sends datagrams. Without one NAT-PMP and PCP are
// not served: a source address alone would open any host's ports for its neighbours.
func (w *Warden) openWitness(ctx context.Context) {
	var err error
	most := 0
	if own := w.cfg.Limits.RequestsPerSecond; own > 0 {
		most = max(leastOfMachine, hostsOfMachine*own)
	}
	web := uint16(0)
	if w.cfg.UPnP.Enabled {
		web = w.cfg.UPnP.HTTPPort
	}
	if w.witness, err = witness.Open(ctx, most, web, ssdp.Group.Port(), pcp.Port); err == nil {
		if way, why := w.witness.Way(); why == nil {
			w.log.Info("identifying UDP senders", "by", way)
		} else {
			w.log.Info("identifying UDP senders", "by", way, "not_by_mark", why)
		}
		if w.silent = w.witness.Silent; !w.witness.Remembers() {
			w.log.Warn("it cannot be checked that a host has asked; the half that reads requests is believed")
		}
	} else if w.cfg.PCP.NATPMP || w.cfg.PCP.PCP {
		w.log.Error("NAT-PMP and PCP are not served", "err", err)
	}
}

// build makes the parts that need no network yet.
func (w *Warden) build(last journal.Restored) error {
	decide, err := policy.New(wiring.Policy(w.cfg))
	if err != nil {
		return err
	}
	w.network = gateway.New(gateway.Config{Listening: w.kernel.Listening, Forwarded: w.firewall.Forwarded})
	w.names = dhcp.New(dhcp.Config{Files: wiring.Plain(w.cfg.LAN.Leases), Log: w.log})
	var answers approvals.Store
	if w.journal != nil {
		answers = w.journal
	}
	w.approvals = approvals.Open(w.log, answers, last.Mappings)
	w.engine, err = portmap.NewEngine(portmap.EngineConfig{
		Policy: decide, Answers: w.approvals.Answers(), Firewall: patient{w.firewall}, Gateway: w.network, Held: w.firewall.Held,
		Store: w.store, Recorded: w.store.Recorded, Published: w.hasChanged,
		LeaseMax: w.cfg.Lease.Max, LeaseMin: w.cfg.Lease.Min, Strict: w.cfg.PCP.Nonce == config.NonceStrict,
	})
	if err != nil {
		return err
	}
	w.approvals.Start(w.engine)
	w.openShown()
	w.Reader = w.engine.Reader
	w.control, err = control.New(control.Config{
		Logger: w.log, Mapper: w.engine, Status: w.status, Running: w.running, Traffic: w.traffic, Host: w.host, Reload: w.reloads, Metrics: w.Metrics,
		Refused: w.refused, Explain: w.explain, Events: w.ownerEvents, Asked: asked{w}, Group: string(w.cfg.Control.Group),
	})
	if err != nil {
		return err
	}
	w.hosts, w.rules = w.newPresence(), w.newReconcile()
	w.ports = gateway.NewKeeper(gateway.KeeperConfig{Log: w.log, Gateway: w.network, Snapshot: w.engine.Snapshot, Revoke: w.revoke})
	w.restore = restore.New(restore.Config{
		Log: w.log, Journal: w.journal, Dir: string(w.cfg.State.Dir), Last: last, Identity: w.identity, Engine: w.engine, Revoke: w.revoke,
		Name: w.host, LANs: w.LANs, Look: w.hosts.Look,
	})
	return nil
}

func (w *Warden) newReconcile() *reconcile.Keeper {
	cfg := reconcile.Config{
		Log: w.log, Watch: w.firewall.Watch, Changed: w.network.RulesChanged, Settled: w.network.Look,
		Drifted: func(drift string) {
			w.engine.Drifted(drift)
			w.hasRead()
		},
		Audits: []func(context.Context, bool) (string, error){w.firewall.Audit},
	}
	if w.witness != nil {
		cfg.Audits = append(cfg.Audits, func(ctx context.Context, _ bool) (string, error) { return w.witness.Audit(ctx) })
	}
	if w.listing != nil {
		cfg.Audits = append(cfg.Audits, w.auditListing)
	}
	return reconcile.New(cfg)
}

func (w *Warden) newPresence() *presence.Keeper {
	cfg := presence.Config{
		Log: w.log, Engine: w.engine, Kernel: w.kernel, LANs: w.LANs,
		LeaseMax: func() time.Duration { return w.now().Lease.Max },
		Limit:    func() int { return w.now().Limits.Mappings },
	}
	if w.witness != nil {
		cfg.Know = w.witness.Know
	}
	return presence.New(cfg)
}
