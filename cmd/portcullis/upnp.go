package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"portcullis/datagram"
	"portcullis/gena"
	"portcullis/httpd"
	"portcullis/igd"
	"portcullis/journal"
	"portcullis/netif"
	"portcullis/portmap"
	"portcullis/ssdp"
)

// serverName names the product, and no versions that tell an attacker what to
// try (abuse case K6).
const serverName = "Linux UPnP/1.1 Portcullis"

// upnp is the UPnP side of the gate: one device, and a door for each LAN.
type upnp struct {
	g        *gate
	device   *igd.Device
	notifier *gena.Notifier // nil: no eventing
	wan      *wanStatus
	targets  []ssdp.Target

	mu     sync.Mutex
	id     journal.Identity // guarded by mu
	doors  map[string]*door // guarded by mu
	closed bool             // guarded by mu
}

// door is what serves one LAN interface at one address.
type door struct {
	lan    atomic.Pointer[netif.LAN] // as it is now
	search *ssdp.Server
	stop   context.CancelFunc
	done   chan struct{}
}

// keep tells an open door of other prefixes.
func (d *door) keep(l netif.LAN) {
	d.lan.Store(&l)
	d.search.SetAddress(l.Addr, l.Prefixes)
}

// accepts says whether a connection may be read.
func (d *door) accepts(remote, local netip.AddrPort) bool {
	l := d.lan.Load()
	return l.OnLink(remote.Addr()) && local.Addr() == l.Addr
}

func newUPnP(g *gate) (*upnp, error) {
	u := &upnp{g: g, doors: make(map[string]*door), wan: newWANStatus(g)}
	u.identify()
	if g.cfg.UPnP.Events {
		u.notifier = gena.New(gena.Config{Logger: g.log, Server: serverName})
	}
	cfg := igd.Config{
		Mapper: g.engine, WAN: u.wan, Identify: g.client,
		UUID: u.id.UUID, FriendlyName: g.cfg.UPnP.FriendlyName, Log: g.log,
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

// identify loads the UUID and takes the next BOOTID. A state directory that
// cannot be used costs clients only that they see a new gateway next time.
func (u *upnp) identify() {
	id, err := journal.LoadIdentity(u.g.cfg.State.Dir)
	if err != nil {
		u.g.log.Warn("the gateway gets a new identity", "error", err)
	}
	u.id = id
	u.nextBootID(id.BootID)
}

// nextBootID takes a BOOTID greater than every one before, and keeps it.
func (u *upnp) nextBootID(last uint32) uint32 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.id.BootID = ssdp.NextBootID(max(last, u.id.BootID), time.Now())
	if err := u.id.Save(u.g.cfg.State.Dir); err != nil {
		u.g.log.Warn("the identity is not kept", "error", err)
	}
	return u.id.BootID
}

// run delivers events until ctx ends, and waits for all doors to be closed.
func (u *upnp) run(ctx context.Context) error {
	var wait sync.WaitGroup
	errs := make(chan error, 2)
	if u.notifier != nil {
		wait.Go(func() { errs <- u.notifier.Run(ctx) })
		w := u.g.engine.Watch(256)
		wait.Go(func() {
			defer w.Close()
			errs <- u.device.Run(ctx, w.C, u.wan.changed)
		})
	}
	<-ctx.Done()
	u.mu.Lock()
	u.closed = true
	doors := u.doors
	u.mu.Unlock()
	for _, d := range doors {
		<-d.done
	}
	wait.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, unlessStopped(ctx, err))
	}
	return all
}

// follow opens, moves and closes doors until they are those of the LANs.
func (u *upnp) follow(ctx context.Context, lans []netif.LAN) error {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil
	}
	wanted := make(map[string]netif.LAN, len(lans))
	for _, l := range lans {
		wanted[l.Name] = l
	}
	var closing []*door
	for name, d := range u.doors {
		if l, ok := wanted[name]; ok && sameDoor(l, *d.lan.Load()) && !d.over() {
			d.keep(l)
			delete(wanted, name)
			continue
		}
		delete(u.doors, name)
		closing = append(closing, d)
	}
	u.mu.Unlock()
	for _, d := range closing {
		d.stop()
		<-d.done
	}
	var failed error
	for _, l := range wanted {
		d, err := u.openDoor(ctx, l)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		u.mu.Lock()
		u.doors[l.Name] = d
		u.mu.Unlock()
	}
	return failed
}

// sameDoor says whether a door can stay open: its sockets are bound to the
// interface and the address. Prefixes come and go more often, IPv6 ones with
// every announcement of a provider, and must not shut clients out for a second.
func sameDoor(a, b netif.LAN) bool { return a.Index == b.Index && a.Addr == b.Addr }

func (d *door) over() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// openDoor opens both sockets of a LAN, or none.
func (u *upnp) openDoor(ctx context.Context, l netif.LAN) (*door, error) {
	at := netip.AddrPortFrom(l.Addr, u.g.cfg.UPnP.HTTPPort)
	front := u.device.On(l.Name, at)
	listener, err := httpd.Listen(ctx, l.Name, at)
	if err != nil {
		return nil, err
	}
	search, err := u.discovery(ctx, l, front)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	d := &door{search: search, done: make(chan struct{})}
	d.keep(l)
	web, err := httpd.New(httpd.Config{
		Logger:            u.g.log,
		Handler:           front,
		Server:            serverName,
		RequestsPerSecond: u.g.cfg.Limits.RequestsPerSecond,
		Accept:            d.accepts,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	ctx, d.stop = context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { u.complain(l, "discovery", search.Run(ctx)) })
	wait.Go(func() { u.complain(l, "control", unlessStopped(ctx, web.Serve(ctx, listener))) })
	go func() {
		wait.Wait()
		close(d.done)
	}()
	u.g.log.Info("serving a LAN", "interface", l.Name, "address", at)
	return d, nil
}

// complain logs what ended a server before its time, and ends its door.
func (u *upnp) complain(l netif.LAN, what string, err error) {
	if err == nil {
		return
	}
	u.g.log.Error("a LAN is no longer served", "interface", l.Name, "server", what, "error", err)
	u.mu.Lock()
	d := u.doors[l.Name]
	u.mu.Unlock()
	if d != nil {
		d.stop()
	}
}

func (u *upnp) discovery(ctx context.Context, l netif.LAN, front *igd.Front) (*ssdp.Server, error) {
	udp, err := ssdp.Listen(ctx, l.Name)
	if err != nil {
		return nil, err
	}
	conn, err := datagram.NewConn(udp, l.Index)
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	s, err := ssdp.New(ssdp.Config{
		Logger: u.g.log, Ifname: l.Name, Ifindex: l.Index, Targets: u.targets, Server: serverName,
		BootID: u.nextBootID(0), NewBootID: u.nextBootID,
		Describe: func(version int, _ netip.Addr) ssdp.Description {
			return ssdp.Description{Location: front.Location(version), ConfigID: u.device.ConfigID()}
		},
	}, conn)
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return s, nil
}

// client says who is behind an address on a LAN interface (design: the client is
// who the socket says).
func (g *gate) client(iface string, addr netip.Addr) (portmap.Client, error) {
	for _, l := range g.network.roles.Load().LAN {
		if l.Name != iface {
			continue
		}
		if !l.OnLink(addr) {
			return portmap.Client{}, fmt.Errorf("%s is not on %s", addr, iface)
		}
		mac, _, err := g.kernel.Neighbour(l.Index, addr)
		if err != nil {
			return portmap.Client{}, fmt.Errorf("neighbour %s: %w", addr, err)
		}
		return portmap.Client{Addr: addr, MAC: mac, Interface: iface}, nil
	}
	return portmap.Client{}, fmt.Errorf("%s is not served", iface)
}
