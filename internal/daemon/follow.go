package daemon

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portcullis/internal/doctor"
	"portcullis/internal/netif"
	"portcullis/internal/pace"
	"portcullis/internal/slog"
)

// remindEvery is how often the owner is told again of what is still waited for.
const remindEvery = pace.Minute

// followerConfig is what a follower needs; every field must be set before changed.
type followerConfig struct {
	Log     *slog.Logger
	Network netif.Settings // what the owner said about interfaces; later see set
	// Warden and Front take in what the network looks like now, in this order.
	Warden func(context.Context, netif.State, netif.Roles)
	Front  func(context.Context, []netif.LAN) error
	// Status is told in a line what is served; nil: nobody wants to know.
	Status func(string)
	// Strays returns the hosts whose answers leave by another way than the WAN.
	Strays func(netif.State, netif.Roles) []doctor.Stray
}

// follower tells the halves how the network changes, and the owner what keeps a LAN from
// being served.
type follower struct {
	cfg followerConfig

	turn      sync.Mutex     // one at a time follows
	strays    []doctor.Stray // guarded by turn; that were warned of
	reminding bool           // guarded by turn; what is the same is said again
	served    string         // guarded by turn; what Status was told last

	mu      sync.Mutex          // guards what is below
	outside map[string]struct{} // the interfaces that have led outside in this run
	warned  []string            // what the last reading warned of
	state   netif.State         // as it was read last
	wan     string              // that was told last, as wan6 was; "": none was yet
	wan6    string
	problem string // why a LAN is not served, "" when all are
}

func newFollower(cfg followerConfig) *follower {
	return &follower{cfg: cfg, outside: make(map[string]struct{})}
}

// choose returns the roles of today. What has led outside once is no LAN by detection,
// even while its route is away.
func (f *follower) choose(s netif.State) (netif.Roles, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range s.Outside() {
		f.outside[name] = struct{}{}
	}
	f.state = s
	roles, err := netif.Choose(s, f.settings(f.cfg.Network))
	for _, w := range roles.Warn {
		if !slices.Contains(f.warned, w) {
			f.cfg.Log.Warn("network warning", "why", w)
		}
	}
	f.warned = roles.Warn
	f.tellWAN(roles)
	return roles, err
}

// settings returns what the owner said, and what has led outside; mu is held.
func (f *follower) settings(set netif.Settings) netif.Settings {
	set.FormerUplinks = slices.Collect(maps.Keys(f.outside))
	return set
}

// changed follows the network. A configuration that has become wrong fails
// closed: Choose gives an interface at fault no role (abuse case A9).
func (f *follower) changed(ctx context.Context, s netif.State) {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.follow(ctx, s, nil)
}

// follow is changed; turn is held. It calls then, if set, between the warden and the front.
func (f *follower) follow(ctx context.Context, s netif.State, then func()) {
	roles, unfit := f.choose(s)
	f.cfg.Warden(ctx, s, roles)
	if then != nil {
		then()
	}
	if ctx.Err() != nil {
		return
	}
	f.tell(unfit, f.cfg.Front(ctx, roles.LAN))
	f.status(roles)
	f.warnStrays(s, roles)
}

// tellWAN says which way to the Internet is taken, when it has changed. What there is at
// the start is told as a choice. mu is held.
func (f *follower) tellWAN(r netif.Roles) {
	was, was6 := f.wan, f.wan6
	f.wan, f.wan6 = wanText(r.WAN.Uplink, r.WAN.External), wanText(r.WAN6, netip.Addr{})
	if was != "" && f.wan != was {
		f.cfg.Log.Info("WAN changed", "is", f.wan, "was", was)
	}
	if was6 != "" && f.wan6 != was6 {
		f.cfg.Log.Info("IPv6 WAN changed", "is", f.wan6, "was", was6)
	}
}

// wanText names an uplink and the address that clients are told, if there are.
func wanText(u netif.Uplink, external netip.Addr) string {
	switch {
	case u.Name == "":
		return "none"
	case external.IsValid():
		return u.Name + " " + external.String()
	}
	return u.Name
}

// status says what is served.
func (f *follower) status(r netif.Roles) {
	if f.cfg.Status == nil {
		return
	}
	line, sep := "waiting for a LAN", "serving "
	for _, l := range r.LAN {
		if sep == "serving " {
			line = ""
		}
		line, sep = line+sep+l.Name, ", "
	}
	switch {
	case r.WAN.Name == "":
		line += "; there is no WAN"
	case !r.WAN.External.IsValid():
		line += "; WAN " + r.WAN.Name + " has no address"
	default:
		line += "; WAN " + r.WAN.Name + " " + r.WAN.External.String()
	}
	if line != f.served {
		f.served = line
		f.cfg.Status(line)
	}
}

// warnStrays tells of hosts whose answers leave by another way, once for as long as it
// is so.
func (f *follower) warnStrays(s netif.State, r netif.Roles) {
	found := f.cfg.Strays(s, r)
	for _, x := range found {
		if x.By != "" && !slices.Contains(f.strays, x) { // a route may come yet
			f.cfg.Log.Warn("mappings may not work", "warning", x.String()+"; `portcullis doctor` tries it with a packet")
		}
	}
	if len(found) == 0 && len(f.strays) > 0 {
		f.cfg.Log.Info("replies leave by the WAN again")
	}
	f.strays = found
}

// tell says what keeps a LAN from being served, once for as long as it is the same.
func (f *follower) tell(unfit, closed error) {
	problem := ""
	if err := errors.Join(unfit, closed); err != nil {
		problem = err.Error()
	}
	f.mu.Lock()
	said := f.problem
	f.problem = problem
	f.mu.Unlock()
	if problem == said && (problem == "" || !f.reminding) {
		return
	}
	switch {
	case problem == "":
		f.cfg.Log.Info("every LAN is served")
	case errors.Is(unfit, netif.ErrNoLAN):
		f.cfg.Log.Warn("waiting for a LAN", "err", unfit)
	case unfit != nil:
		f.cfg.Log.Error("network no longer fits the configuration", "err", unfit)
	}
	if closed != nil {
		f.cfg.Log.Error("cannot serve a LAN interface", "err", closed)
	}
}

// failed notes that a server has ended, for again.
func (f *follower) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problem = err.Error()
}

// remind tries again, from time to time, what could not be served, and says so.
func (f *follower) remind(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pace.Until(remindEvery)):
			f.again(ctx)
		}
	}
}

// again follows the network once more where a LAN is not served.
func (f *follower) again(ctx context.Context) {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	s, problem := f.state, f.problem
	f.mu.Unlock()
	if problem != "" {
		f.reminding = true
		f.follow(ctx, s, nil)
		f.reminding = false
	}
}
