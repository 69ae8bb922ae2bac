package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"portcullis/firewall"
	"portcullis/internal/doctor"
	"portcullis/internal/netif"
	"portcullis/internal/wiring"
	"portcullis/portmap"
)

// remindEvery is how often the owner is told again of what is still waited for.
const remindEvery = time.Minute

// follower is what the gate remembers of the network while it follows it.
type follower struct {
	turn      sync.Mutex     // one at a time follows
	strays    []doctor.Stray // guarded by turn; that were warned of
	reminding bool           // guarded by turn; what is the same is said again

	mu      sync.Mutex          // guards what is below
	outside map[string]struct{} // the interfaces that have led outside in this run
	warned  []string            // what the last reading warned of
	state   netif.State         // as it was read last
	problem string              // why a LAN is not served, "" when all are
}

// choose returns the roles of today. What has led outside once is no LAN by detection,
// even while its route is away.
func (g *gate) choose(s netif.State) (netif.Roles, error) {
	f := &g.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outside == nil {
		f.outside = make(map[string]struct{})
	}
	for _, name := range s.Outside() {
		f.outside[name] = struct{}{}
	}
	set := wiring.Network(g.cfg)
	set.FormerUplinks = slices.Collect(maps.Keys(f.outside))
	roles, err := netif.Choose(s, set)
	for _, w := range roles.Warn {
		if !slices.Contains(f.warned, w) {
			g.log.Warn("network", "warning", w)
		}
	}
	f.warned = roles.Warn
	return roles, err
}

// configure tells everybody what the network looks like now.
func (g *gate) configure(ctx context.Context, s netif.State, r netif.Roles) error {
	g.network.Set(s, r)
	return errors.Join(g.firewall.Configure(ctx, wiring.Facts(g.cfg, r)), g.seeSenders(ctx, r))
}

// changed follows the network. A configuration that has become wrong fails
// closed: Choose gives an interface at fault no role (abuse case A9).
func (g *gate) changed(ctx context.Context, s netif.State) {
	g.follower.turn.Lock()
	defer g.follower.turn.Unlock()
	g.follow(ctx, s)
}

func (g *gate) follow(ctx context.Context, s netif.State) {
	roles, unfit := g.choose(s)
	if err := g.configure(ctx, s, roles); err != nil && ctx.Err() == nil {
		g.log.Error("cannot update the firewall for the network", "err", err)
	}
	g.dropForeign(ctx)
	g.restore.Readmit(ctx)
	if ctx.Err() != nil {
		return
	}
	if g.ports != nil {
		g.listeners.Announce(g.ports.follow())
	}
	g.tell(s, unfit, g.listeners.Follow(ctx, roles.LAN))
	g.warnStrays(s, roles)
	if g.upnp != nil {
		g.upnp.wan.refresh()
	}
}

// warnStrays tells of hosts whose answers leave by another way, once for as long as it
// is so.
func (g *gate) warnStrays(s netif.State, r netif.Roles) {
	found := doctor.Strays(g.kernel, s, r, doctor.Marks{})
	for _, x := range found {
		if x.By != "" && !slices.Contains(g.follower.strays, x) { // a route may come yet
			g.log.Warn("mappings may not work", "warning", x.String()+"; `portcullis doctor` tries it with a packet")
		}
	}
	if len(found) == 0 && len(g.follower.strays) > 0 {
		g.log.Info("replies leave by the WAN again")
	}
	g.follower.strays = found
}

// tell says what keeps a LAN from being served, once for as long as it is the same.
func (g *gate) tell(s netif.State, unfit, closed error) {
	problem := ""
	if err := errors.Join(unfit, closed); err != nil {
		problem = err.Error()
	}
	f := &g.follower
	f.mu.Lock()
	said := f.problem
	f.state, f.problem = s, problem
	f.mu.Unlock()
	if problem == said && (problem == "" || !f.reminding) {
		return
	}
	switch {
	case problem == "":
		g.log.Info("every LAN is served")
	case errors.Is(unfit, netif.ErrNoLAN):
		g.log.Warn("waiting for a LAN", "err", unfit)
	case unfit != nil:
		g.log.Error("network no longer fits the configuration", "err", unfit)
	}
	if closed != nil {
		g.log.Error("cannot serve a LAN interface", "err", closed)
	}
}

// failed notes that a server has ended, for again.
func (f *follower) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problem = err.Error()
}

// remind tries again, from time to time, what could not be served, and says so.
func (g *gate) remind(ctx context.Context) error {
	tick := time.NewTicker(remindEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			g.again(ctx)
		}
	}
}

// again follows the network once more where a LAN is not served.
func (g *gate) again(ctx context.Context) {
	f := &g.follower
	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	s, problem := f.state, f.problem
	f.mu.Unlock()
	if problem != "" {
		f.reminding = true
		g.follow(ctx, s)
		f.reminding = false
	}
}

// patient is the firewall as the engine sees it: an accept chain that is not there yet
// is nothing that a start could fail of. All else is in force, the backend has told
// the owner, and its audit puts our part in as soon as the chain is there.
type patient struct{ wiring.Backend }

// Replace implements portmap.Firewall.
func (p patient) Replace(ctx context.Context, want []portmap.Mapping) error {
	err := p.Backend.Replace(ctx, want)
	var chain *firewall.ChainError
	if errors.As(err, &chain) {
		return nil
	}
	return err
}
