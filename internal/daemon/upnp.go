package daemon

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"portcullis/igd"
	"portcullis/internal/datagram"
	"portcullis/internal/gena"
	"portcullis/internal/httpd"
	"portcullis/internal/listeners"
	"portcullis/internal/netif"
	"portcullis/ssdp"
)

// serverName names the product, and no versions that tell an attacker what to
// try (abuse case K6).
const serverName = "Linux UPnP/1.1 Portcullis"

// upnp is the UPnP side of the gate: one device, shown on every LAN.
type upnp struct {
	g        *gate
	device   *igd.Device
	notifier *gena.Notifier // nil: no eventing
	wan      *wanStatus
	targets  []ssdp.Target
}

func newUPnP(g *gate) (*upnp, error) {
	u := &upnp{g: g, wan: newWANStatus(g)}
	if g.cfg.UPnP.Events {
		u.notifier = gena.New(gena.Config{Logger: g.log, Server: serverName})
	}
	cfg := igd.Config{
		Mapper: g.engine, WAN: u.wan, Identify: g.identify.Client,
		As: g.identify.As, Packets: g.packets, OutboundTimeout: g.firewall.OutboundTimeout,
		InboundAllowed: func() bool { return g.network.View().WAN6Up },
		UUID:           g.identity.UUID(), Path: g.identity.Path(), FriendlyName: string(g.cfg.UPnP.FriendlyName), Log: g.log,
	}
	if u.notifier != nil {
		cfg.Notifier = u.notifier
	}
	var err error
	if u.device, err = igd.New(cfg); err != nil {
		return nil, err
	}
	for _, t := range u.device.Targets() {
		u.targets = append(u.targets, ssdp.Target{Type: t.Type, MaxVersion: t.MaxVersion, UUID: t.UUID, Tree: t.Tree})
	}
	return u, nil
}

// run delivers events until ctx ends.
func (u *upnp) run(ctx context.Context) error {
	if u.notifier == nil {
		return nil
	}
	w := u.g.engine.Watch(256)
	defer w.Close()
	var wait sync.WaitGroup
	errs := make(chan error, 2)
	wait.Go(func() { errs <- u.notifier.Run(ctx) })
	wait.Go(func() { errs <- u.device.Run(ctx, w.C, u.wan.changed) })
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
		Logger:            u.g.log,
		Handler:           u.front(l, addr),
		Server:            serverName,
		RequestsPerSecond: u.g.cfg.Limits.RequestsPerSecond,
		Accept:            accepts,
		Device:            func(a netip.Addr) (string, bool) { return u.g.identify.Device(l.Name, a) },
	})
	if err != nil {
		return nil, err
	}
	listener, err := httpd.Listen(ctx, l.Name, netip.AddrPortFrom(addr, u.g.cfg.UPnP.HTTPPort))
	if err != nil {
		return nil, err
	}
	return &listeners.Server{
		Name:  "control",
		Run:   func(ctx context.Context) error { return unlessStopped(ctx, web.Serve(ctx, listener)) },
		Close: listener.Close,
	}, nil
}

// front is the device as it shows itself on a LAN at one address.
func (u *upnp) front(l netif.LAN, addr netip.Addr) *igd.Front {
	return u.device.On(l.Name, netip.AddrPortFrom(addr, u.g.cfg.UPnP.HTTPPort))
}

// discovery is the server of searches on a LAN in one family.
func (u *upnp) discovery(ctx context.Context, at listeners.Key, l netif.LAN) (*listeners.Server, error) {
	listen, newConn, local := ssdp.Listen, datagram.NewConn, netif.LAN.IPv4
	if at.IPv6 {
		listen, newConn, local = ssdp.Listen6, datagram.NewConn6, netif.LAN.IPv6
	}
	udp, err := listen(ctx, l.Name)
	if err != nil {
		return nil, err
	}
	conn, err := newConn(udp, l.Index)
	if err == nil && u.g.witness != nil {
		conn, err = u.g.witness.Marked(udp, conn)
	}
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	s, err := ssdp.New(ssdp.Config{
		Logger: u.g.log, Ifname: l.Name, Ifindex: l.Index, IPv6: at.IPv6, Targets: u.targets, Server: serverName,
		Account: func(p datagram.Packet) datagram.Account { return u.g.identify.Account(l.Name, p) },
		BootID:  u.g.identity.NextBootID(0), NewBootID: u.g.identity.NextBootID,
		Describe: func(version int, local netip.Addr) ssdp.Description {
			if at.IPv6 {
				// Consoles, which believe in version 1 alone, do not come this way,
				// and who opens pinholes needs version 2 but may search for 1, as
				// miniupnpc does.
				version = 2
			}
			return ssdp.Description{Location: u.front(l, local).Location(version), ConfigID: u.device.ConfigID()}
		},
	}, conn)
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return &listeners.Server{
		Name: "discovery", Run: s.Run, Close: conn.Close,
		Follow: func(l netif.LAN) { s.SetAddresses(local(l), l.Prefixes) },
	}, nil
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
