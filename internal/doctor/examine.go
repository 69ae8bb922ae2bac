package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/firewall/iptables"
	"portcullis/internal/check"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/internal/special"
	"portcullis/internal/wiring"
)

// Examine gathers the facts about the machine, for the configuration that the daemon runs,
// or for the one that doctor was called with where none runs. The error is that the network
// cannot be read, or that the daemon has stopped to answer.
func Examine(ctx context.Context, called Called, f *Facts) error {
	c, now, err := called.ask(ctx, f)
	if err != nil || f.Config != nil {
		return err
	}
	kernel, err := netif.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("read the network: %w", err)
	}
	defer kernel.Close()
	state, err := kernel.Read(ctx)
	if err != nil {
		return fmt.Errorf("read the network: %w", err)
	}
	roles, err := netif.Choose(state, wiring.Network(c))
	f.Network, f.Doubts = err, roles.Warn
	for _, l := range roles.LAN {
		f.LANs = append(f.LANs, l.Name)
	}
	f.WAN, f.WANUp, f.WAN6Up = roles.WAN.Name, roles.WAN.Up, roles.WAN6.Up
	f.WANGone = f.WAN != "" && !slices.ContainsFunc(state.Links, func(l netif.Link) bool { return l.Name == f.WAN })
	f.Private, f.Allowed = roles.WAN.Private, !roles.WAN.Refused
	if roles.WAN.External.IsValid() {
		f.External = roles.WAN.External.String()
	} else if len(roles.WAN.IPv4()) > 0 {
		f.External = roles.WAN.IPv4()[0].String()
	}
	f.DefaultRoutes = len(state.Default4)
	examineMachine(c, kernel, roles, f)
	examineLANs(c, state, roles, f)
	switch {
	case !f.Daemon.Answers:
		f.Taken = taken(ctx, kernel, c)
	case c.Firewall.Backend == config.BackendAuto: // as the daemon's user it may have chosen another than root would
		c.Firewall.Backend = config.Backend(now.Firewall.Backend)
	}
	for _, l := range roles.LAN {
		if !l.Addr.IsValid() {
			continue // both are of IPv4
		}
		f.OtherGateways = append(f.OtherGateways, otherGateways(ctx, l)...)
		f.OtherDHCP = append(f.OtherDHCP, otherDHCP(ctx, l)...)
	}
	examineFirewall(ctx, c, state, roles, f)
	seen := f.Trial
	f.AnswersSeen = roles.WAN.Up && roles.WAN.Master == 0 && len(roles.LAN) > 0 && f.Forwards
	for _, x := range Strays(kernel, state, roles, Marks{seen.Mapping.Mark, seen.Pinhole.Mark, TrialPort}) {
		if forwards := !x.IPv6 && f.Forwards || x.IPv6 && f.Forwards6; forwards { // or there is no route for anything
			f.Strays = append(f.Strays, x)
		}
	}
	return nil
}

// examineMachine looks at what the kernel has been told.
func examineMachine(c config.Config, kernel *netif.Kernel, roles netif.Roles, f *Facts) {
	f.Forwards, _ = kernel.Forwarding() // not to be read is as good as off
	f.Forwards6 = sysctl("net/ipv6/conf/all/forwarding") == "1"
	for _, name := range []string{"all", roles.WAN.Name} {
		if name != "" && sysctl("net/ipv4/conf/"+name+"/rp_filter") == "1" {
			f.StrictRP = append(f.StrictRP, name)
		}
	}
	var t unix.Timex
	status, err := unix.Adjtimex(&t)
	f.Now, f.Synced = time.Now(), err == nil && status != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	f.State = writable(string(c.State.Dir))
	if len(c.Hook.Command) > 0 {
		f.Hook.Command, f.Hook.Err = c.Hook.Command[0], check.Runnable(c.Hook.Command[0])
	}
}

func sysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// writable returns what keeps us from writing to a directory, which may not be there
// yet.
func writable(dir string) error {
	for {
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist) && dir != "/":
			dir = dir[:max(strings.LastIndexByte(dir, '/'), 1)]
			continue
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%s is not a directory", dir)
		}
		return unix.Access(dir, unix.W_OK)
	}
}

// examineFirewall tries the backend, and a packet's way.
func examineFirewall(ctx context.Context, c config.Config, state netif.State, roles netif.Roles, f *Facts) {
	quiet := slog.New(slog.DiscardHandler)
	f.AcceptChain, f.AcceptChain6 = c.Firewall.AcceptChain.String(), c.Firewall.AcceptChain6.String()
	f.Backend = string(c.Firewall.Backend)
	b, name, err := wiring.Firewall(ctx, quiet, c)
	if f.Firewall = err; err != nil {
		return
	}
	f.Backend = name
	if err := b.Close(ctx, true); err != nil { // it has written nothing
		f.Firewall = err
		return
	}
	if name == firewall.NFTables {
		_, f.Legacy, _ = iptables.LegacyRules(ctx)
	}
	setup, why := trialSetup(c, state, roles)
	if setup.Rules, err = listRules(ctx, name); err != nil {
		f.Trial.Skipped = err.Error()
		f.readAsks(ctx, c, roles, nil)
		return
	}
	if len(setup.LANs) > 0 && len(setup.Asks) > 0 {
		f.Asks, f.AsksFailed = tryAsks(ctx, setup)
		f.AsksSeen = f.AsksFailed == nil
	}
	if f.AsksFailed != nil {
		f.readAsks(ctx, c, roles, setup.Rules)
	}
	if why != "" {
		f.Trial.Skipped = why
		return
	}
	setup.Open = func(ctx context.Context, netns int) (Backend, error) {
		return wiring.FirewallIn(ctx, quiet, c, name, netns)
	}
	bare := c
	bare.Firewall.AcceptChain, bare.Firewall.AcceptChain6 = firewall.Chain{}, firewall.Chain{}
	setup.Bare = func(ctx context.Context, netns int) (Backend, error) {
		return wiring.FirewallIn(ctx, quiet, bare, firewall.NFTables, netns)
	}
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	trial, err := Try(ctx, setup)
	if err != nil {
		trial.Skipped = err.Error()
	}
	f.Trial = trial
}

// readAsks says what the rules alone do, where no packet could be tried: in a container, say.
func (f *Facts) readAsks(ctx context.Context, c config.Config, roles netif.Roles, rules []Rules) {
	all, err := Unheard(ctx, c, roles)
	if err != nil {
		f.AsksFailed = errors.Join(f.AsksFailed, err)
		return
	}
	for _, d := range all {
		d.Owner = ownerOf(rules, d)
		f.Asks = append(f.Asks, d)
	}
}

// trialSetup is the machine as a packet sees it, or why it cannot be copied.
func trialSetup(c config.Config, state netif.State, roles netif.Roles) (Setup, string) {
	s := Setup{Firewall: wiring.Facts(c, roles)}
	for _, link := range state.Links {
		if !link.Loopback {
			s.Links = append(s.Links, link.Name)
		}
	}
	web := c.UPnP.HTTPPort
	if !c.UPnP.Enabled {
		web = 0
	}
	s.Asks = Asked(web, c.PCP.NATPMP, c.PCP.PCP)
	for _, l := range roles.LAN {
		s.LANs = append(s.LANs, inside(l))
	}
	if roles.WAN.Name == "" || !roles.WAN.Up || len(roles.LAN) == 0 {
		return s, "there is no WAN or no LAN"
	}
	if len(s.Firewall.WAN) == 0 { // a private address, which the trial does not mind
		s.Firewall.WAN = []firewall.Uplink{{Interface: roles.WAN.Name, Addrs: roles.WAN.IPv4()}}
	}
	if len(s.Firewall.WAN[0].Addrs) == 0 {
		return s, "the WAN has no address"
	}
	s.External = s.Firewall.WAN[0].Addrs[0]
	l := roles.LAN[max(slices.IndexFunc(roles.LAN, func(l netif.LAN) bool { return l.Addr.IsValid() }), 0)]
	s.Firewall.LAN = []string{l.Name}
	s.LAN = inside(l).LAN
	for _, p := range l.Prefixes {
		for _, a := range l.IPv6() {
			if p.Contains(a) && !a.IsLinkLocalUnicast() && !a.IsPrivate() {
				s.LAN6 = netip.PrefixFrom(a, p.Bits())
			}
		}
	}
	if !s.LAN.IsValid() {
		return s, "no LAN has a network of IPv4"
	}
	return s, ""
}

// inside returns a LAN as its clients see it.
func inside(l netif.LAN) Inside {
	x := Inside{Name: l.Name, IPv6: len(l.IPv6()) > 0}
	for _, p := range l.Direct {
		if l.Addr.IsValid() && p.Contains(l.Addr) && !p.IsSingleIP() && (!x.LAN.IsValid() || p.Bits() > x.LAN.Bits()) {
			x.LAN = netip.PrefixFrom(l.Addr, p.Bits())
		}
	}
	return x
}

// trialTime is how long each of both trials may take.
const trialTime = time.Minute

func tryAsks(ctx context.Context, s Setup) ([]Dropped, error) {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	return TryAsks(ctx, s)
}

// examineLANs looks at what is served that the owner may not mean.
func examineLANs(c config.Config, state netif.State, roles netif.Roles, f *Facts) {
	f.Detected = len(c.LAN.Interfaces) == 0
	for _, l := range roles.LAN {
		for _, a := range l.Addrs {
			if a.Is4() && l.Addr.IsValid() && !slices.Contains(l.IPv4(), a) {
				f.Unserved = append(f.Unserved, a.String()+" on "+l.Name)
			}
		}
	}
	if f.mappings != nil {
		f.Quotas = quotas(c, f.mappings, roles.LAN)
	}
	told := c.WAN.ExternalIP.Addr
	here := slices.ContainsFunc(state.Links, func(l netif.Link) bool {
		return slices.ContainsFunc(l.Addrs, func(a netif.Addr) bool { return a.Prefix.Addr() == told })
	})
	public := slices.ContainsFunc(roles.WAN.IPv4(), special.Public)
	if told.IsValid() && !here && public { // with a private one another router translates
		f.Left, f.Own = told.String(), roles.WAN.IPv4()[0].String()
	}
}
