package front

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"portcullis/igd"
	"portcullis/internal/datagram"
	"portcullis/internal/identify"
	"portcullis/internal/listeners"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Warden is the half that decides: the engine, the firewall, the state directory, and who
// is there. Its methods are safe for concurrent use.
type Warden interface {
	Map(context.Context, portmap.Request) (portmap.Mapping, error)
	MapSet(context.Context, portmap.Request, int) ([]portmap.Mapping, error)
	Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error)

	// The questions of portmap.Reader, each answered with a few values.
	Own(ctx context.Context, id portmap.ClientID, from, n int) (portmap.Page, error)
	OwnPorts(ctx context.Context, id portmap.ClientID, tr portmap.Transport, ports portmap.PortRange, from, n int) (portmap.Page, error)
	External(ctx context.Context, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error)
	Internal(ctx context.Context, id portmap.ClientID, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error)
	Pinhole(ctx context.Context, number uint16) (portmap.Mapping, error)
	// Events returns how the mappings change until ctx ends, as portmap.Watcher does: who
	// does not keep up finds a Resync. Only these are set: Type, and of the Mapping its
	// Kind and the ID of its Client.
	Events(ctx context.Context) <-chan portmap.Event
	// Packets returns how many packets have come in by a mapping, OutboundTimeout how
	// long answers come in after the last packet of what a host began itself.
	Packets(ctx context.Context, m portmap.Mapping) (uint64, error)
	OutboundTimeout(portmap.Transport) (time.Duration, error)

	// Uplink returns how the Internet reaches the gateway now, by IPv4, and whether by
	// IPv6; LANs the interfaces to serve, by name. They come from memory.
	Uplink() (four portmap.WAN, six bool)
	LANs() map[string]netif.LAN

	// Heard reports whether a device has answered the kernel in this run, and Suspect has
	// the rules looked at by which senders are seen.
	Heard(portmap.MAC) bool
	Suspect()
	// Resolve has the kernel ask a LAN for a host's MAC address, without waiting.
	Resolve(lan string, addr netip.Addr) error

	// KeepEpochs keeps for the next run when the epochs of IPv4 and IPv6 began.
	KeepEpochs(four, six time.Time)
	// NextBootID returns a BOOTID.UPNP.ORG greater than last and every one before.
	NextBootID(last uint32) uint32
}

// Sockets opens the sockets of a LAN, which needs a privilege, and binds them to its
// interface. A datagram that comes by one says which machine sent it, as far as that can
// be seen.
type Sockets interface {
	Discovery(ctx context.Context, l netif.LAN, six bool) (datagram.Conn, error)
	PortControl(ctx context.Context, l netif.LAN, six bool) (datagram.Conn, error)
	HTTP(ctx context.Context, l netif.LAN, addr netip.AddrPort) (net.Listener, error)
	// Dial connects to a subscriber of events: to a host of a LAN that is served, from an
	// address of ours there.
	Dial(ctx context.Context, lan string, local netip.Addr, to netip.AddrPort) (net.Conn, error)
}

// Kernel is what a Front reads of links and neighbours; netif.Kernel is one.
type Kernel interface {
	identify.Kernel
	Stats(ifname string) (netif.Stats, error)
	Speed(ifname string) (uint64, bool)
}

// Config is what a Front needs. The four before the settings must be set.
type Config struct {
	Log     *slog.Logger
	Warden  Warden
	Sockets Sockets
	Kernel  Kernel

	UPnP         bool   // is spoken
	Events       bool   // of UPnP are delivered
	UUID, Path   string // of the UPnP device, as igd.Config says
	FriendlyName string // likewise
	Product      Product
	HTTPPort     uint16        // of descriptions and actions
	MaxAge       time.Duration // of announcements; 0: half an hour

	RateUp, RateDown uint64 // bits a second that are told of the WAN; 0: what the interface says

	// Version1 has every client shown the description of version 1, and Version1Clients
	// those in these networks.
	Version1        bool
	Version1Clients []netip.Prefix

	NATPMP, PCP bool // are spoken

	RequestsPerSecond int  // that one device is answered; 0: no limit
	SameDevice        bool // a client may speak for other addresses of its device
	// Failed is told when a server ended before its time; the next Follow opens it again.
	Failed func(error)
}

// Product is what UPnP's description says of the gateway.
type Product = igd.Product

// Front is the servers of all LANs.
type Front struct {
	cfg       Config
	listeners *listeners.Set
	upnp      *upnp        // nil: switched off
	ports     *portControl // nil: switched off
}

// New returns a Front without sockets.
func New(cfg Config) (*Front, error) {
	f := &Front{cfg: cfg}
	f.listeners = listeners.New(listeners.Config{Log: cfg.Log, Open: f.open, Failed: cfg.Failed})
	who := identify.New(identify.Config{
		Log: cfg.Log, Kernel: cfg.Kernel, LANs: cfg.Warden.LANs, Heard: cfg.Warden.Heard, Resolve: cfg.Warden.Resolve,
		SameDevice: cfg.SameDevice, Suspect: cfg.Warden.Suspect,
	})
	if cfg.NATPMP || cfg.PCP {
		f.ports = newPortControl(&f.cfg, who)
	}
	var err error
	if cfg.UPnP {
		f.upnp, err = newUPnP(&f.cfg, who)
	}
	return f, err
}

// Resume lets the epochs of the last run go on, which began then. It is called before
// Serve.
func (f *Front) Resume(four, six time.Time) {
	if f.ports != nil {
		f.ports.resume(four, six)
	}
}

// Open opens the sockets of the LANs, which nobody reads before Serve.
func (f *Front) Open(ctx context.Context, lans []netif.LAN) error {
	return f.listeners.Follow(ctx, lans)
}

// Abandon closes the sockets of a Front that was never served.
func (f *Front) Abandon() error { return f.listeners.Abandon() }

// Serve begins to answer, until ctx ends.
func (f *Front) Serve(ctx context.Context) {
	if f.ports != nil {
		f.ports.follow() // servers announce themselves when they begin
	}
	f.listeners.Serve(ctx)
}

// Run delivers events until ctx ends, and waits for all sockets to be closed, after
// Serve.
func (f *Front) Run(ctx context.Context) (err error) {
	if f.upnp != nil {
		err = f.upnp.run(ctx)
	}
	f.listeners.Wait(ctx)
	return err
}

// Follow takes in that the Warden's network has changed. The error joins those of the
// servers that cannot be opened; all others are. It must not be called twice at the same
// time.
func (f *Front) Follow(ctx context.Context, lans []netif.LAN) error {
	if f.ports != nil {
		f.listeners.Announce(f.ports.follow())
	}
	err := f.listeners.Follow(ctx, lans)
	if f.upnp != nil {
		f.upnp.wan.refresh()
	}
	return err
}

// Pulse waits until the loop of each server has shown that it serves, after Serve. The
// error names one that had not when ctx ended. A request that hangs in a goroutine of its
// own holds no loop up.
func (f *Front) Pulse(ctx context.Context) error { return f.listeners.Pulse(ctx) }

// open opens the servers of every protocol at a listener, or none.
func (f *Front) open(ctx context.Context, at listeners.Key, l netif.LAN, accepts listeners.Accepts) (all []*listeners.Server, err error) {
	if f.upnp != nil {
		if all, err = f.upnp.servers(ctx, at, l, accepts); err != nil {
			return nil, err
		}
	}
	// NAT-PMP knows no IPv6.
	if f.ports != nil && !at.Also.IsValid() && (!at.IPv6 || f.cfg.PCP) {
		s, err := f.ports.server(ctx, at, l)
		if err != nil {
			for _, opened := range all {
				err = errors.Join(err, opened.Close())
			}
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// unlessStopped forgets the error that a context's end makes.
func unlessStopped(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}
