package front

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"portcullis/igd"
	"portcullis/internal/datagram"
	"portcullis/internal/gena"
	"portcullis/internal/httpd"
	"portcullis/internal/identify"
	"portcullis/internal/listeners"
	"portcullis/internal/netif"
	"portcullis/ssdp"
)

// serverName names the product, and no versions that tell an attacker what to
// try (abuse case K6).
const serverName = "Linux UPnP/1.1 Portcullis"

// upnp is one device, shown on every LAN.
type upnp struct {
	cfg      *Config
	who      *identify.Identifier
	device   *igd.Device
	notifier *gena.Notifier // nil: no eventing
	wan      *wanStatus
	targets  []ssdp.Target
}

func newUPnP(cfg *Config, who *identify.Identifier) (*upnp, error) {
	u := &upnp{cfg: cfg, who: who, wan: newWANStatus(cfg)}
	if cfg.Events {
		u.notifier = gena.New(gena.Config{Logger: cfg.Log, Server: serverName, Dial: u.dial})
	}
	device := igd.Config{
		Mapper: cfg.Warden, WAN: u.wan, Identify: who.Client,
		As: who.As, Packets: cfg.Warden.Packets, OutboundTimeout: cfg.Warden.OutboundTimeout,
		InboundAllowed: u.inboundAllowed,
		UUID:           cfg.UUID, Path: cfg.Path, FriendlyName: cfg.FriendlyName, Product: cfg.Product, Log: cfg.Log,
	}
	if u.notifier != nil {
		device.Notifier = u.notifier
	}
	var err error
	if u.device, err = igd.New(device); err != nil {
		return nil, err
	}
	for _, t := range u.device.Targets() {
		u.targets = append(u.targets, ssdp.Target{Type: t.Type, MaxVersion: t.MaxVersion, UUID: t.UUID, Tree: t.Tree})
	}
	return u, nil
}

func (u *upnp) inboundAllowed() bool {
	_, six := u.cfg.Warden.Uplink()
	return six
}

// dial connects to a subscriber of events.
func (u *upnp) dial(ctx context.Context, sub gena.Subscriber, to netip.AddrPort) (net.Conn, error) {
	return u.cfg.Sockets.Dial(ctx, sub.Interface, sub.Local, to)
}

// run delivers events until ctx ends.
func (u *upnp) run(ctx context.Context) error {
	if u.notifier == nil {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events := u.cfg.Warden.Events(ctx)
	var wait sync.WaitGroup
	errs := make(chan error, 2)
	wait.Go(func() { errs <- u.notifier.Run(ctx) })
	wait.Go(func() { errs <- u.device.Run(ctx, events, u.wan.changed) })
	wait.Wait()
	return errors.Join(unlessStopped(ctx, <-errs), unlessStopped(ctx, <-errs))
}

// control is the server of descriptions and actions on a LAN.
func (u *upnp) control(ctx context.Context, at listeners.Key, l netif.LAN, accepts listeners.Accepts) (*listeners.Server, error) {
	// Of IPv6, a LAN has addresses that come and go: one socket for all of them,
	// and accepts says which are ours.
	addr := netip.IPv6Unspecified()
	switch {
	case at.Also.IsValid():
		addr = at.Also
	case !at.IPv6:
		addr = l.Addr
	}
	web, err := httpd.New(httpd.Config{
		Logger:            u.cfg.Log,
		Handler:           u.handler(l, addr),
		Server:            serverName,
		RequestsPerSecond: u.cfg.RequestsPerSecond,
		Accept:            accepts,
		Device:            func(a netip.Addr) (string, bool) { return u.who.Device(l.Name, a) },
	})
	if err != nil {
		return nil, err
	}
	listener, err := u.cfg.Sockets.HTTP(ctx, l, netip.AddrPortFrom(addr, u.cfg.HTTPPort))
	if err != nil {
		return nil, err
	}
	return &listeners.Server{
		Name:  "UPnP",
		Run:   func(ctx context.Context) error { return unlessStopped(ctx, web.Serve(ctx, listener)) },
		Close: listener.Close, Pulse: web.Pulse,
	}, nil
}

// handler is the device as it shows itself on a LAN at one address.
func (u *upnp) handler(l netif.LAN, addr netip.Addr) *igd.Handler {
	return u.device.On(l.Name, netip.AddrPortFrom(addr, u.cfg.HTTPPort))
}

// discovery is the server of searches on a LAN in one family.
func (u *upnp) discovery(ctx context.Context, at listeners.Key, l netif.LAN) (*listeners.Server, error) {
	local := netif.LAN.IPv4
	if at.IPv6 {
		local = netif.LAN.IPv6
	}
	conn, err := u.cfg.Sockets.Discovery(ctx, l, at.IPv6)
	if err != nil {
		return nil, err
	}
	s, err := ssdp.New(ssdp.Config{
		Logger: u.cfg.Log, Ifname: l.Name, Ifindex: l.Index, IPv6: at.IPv6, Targets: u.targets, Server: serverName,
		Account: func(p datagram.Packet) datagram.Account { return u.who.Account(l.Name, p) },
		BootID:  u.cfg.Warden.NextBootID(0), NewBootID: u.cfg.Warden.NextBootID,
		MaxAge: u.cfg.MaxAge, Plain: u.version1,
		Describe: func(version int, local netip.Addr) ssdp.Description {
			return ssdp.Description{Location: u.handler(l, local).Location(u.shown(version, at.IPv6)), ConfigID: u.device.ConfigID()}
		},
	}, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &listeners.Server{
		Name: "UPnP discovery", Run: s.Run, Close: conn.Close, Pulse: s.Pulse,
		Follow: func(l netif.LAN) { s.SetAddresses(local(l), l.Prefixes) },
	}, nil
}

// shown returns the version of the description for who searched for one.
func (u *upnp) shown(version int, six bool) int {
	switch {
	case version == ssdp.Plain || u.cfg.Version1:
		return 1
	case six:
		// Consoles, which believe in version 1 alone, do not come this way, and who opens
		// pinholes needs version 2 but may search for 1, as miniupnpc does.
		return 2
	}
	return version
}

// version1 reports whether a client is shown the description of version 1 whatever it
// searches for: some have trouble with version 2 and find it all the same.
func (u *upnp) version1(client netip.Addr) bool {
	return slices.ContainsFunc(u.cfg.Version1Clients, func(p netip.Prefix) bool { return p.Contains(client.WithZone("")) })
}

// servers opens the sockets of a listener, or none: control, and discovery unless that
// of another listener speaks for this one too.
func (u *upnp) servers(ctx context.Context, at listeners.Key, l netif.LAN, accepts listeners.Accepts) ([]*listeners.Server, error) {
	web, err := u.control(ctx, at, l, accepts)
	switch {
	case err != nil:
		return nil, err
	case at.Also.IsValid():
		return []*listeners.Server{web}, nil
	}
	search, err := u.discovery(ctx, at, l)
	if err != nil {
		return nil, errors.Join(err, web.Close())
	}
	return []*listeners.Server{web, search}, nil
}
