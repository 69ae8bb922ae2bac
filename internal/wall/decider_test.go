package wall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/frames"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// decider is the other half, which remembers what it was asked.
type decider struct {
	mu    sync.Mutex // guards what follows
	asked []string
	lans  map[string]netif.LAN
	wan   portmap.WAN
	six   bool
	slow  chan struct{} // where set, MapSet waits for it, or for the end of the client's patience
	err   error         // of every question

	asking func() // where set, is called with each question
	turn   *Turn  // of the server's configuration

	events chan portmap.Event
	began  chan struct{}      // holds one for each MapSet that waits
	gaveUp chan time.Duration // after how much of its patience
}

func newDecider() *decider {
	return &decider{
		lans: map[string]netif.LAN{"lo": {
			Name: "lo", Index: 1, Addr: loopback, Addrs: []netip.Addr{loopback, netip.IPv6LinkLocalAllNodes().WithZone("lo")},
			Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		}},
		wan: portmap.WAN{Name: "wan0", Up: true, External: netip.MustParseAddr("203.0.113.1")}, six: true,
		events: make(chan portmap.Event, 1000), began: make(chan struct{}, MaxUnderWay), gaveUp: make(chan time.Duration, MaxUnderWay),
	}
}

var settings = Settings{
	UPnP: true, Events: true, UUID: "u", Path: "p", FriendlyName: "Gateway", HTTPPort: httpPort, NATPMP: true, PCP: true,
	RequestsPerSecond: 20, SameDevice: true, UID: 64999,
	Product: Product{
		Manufacturer: "Example", ManufacturerURL: "http://m/", ModelName: "M", ModelNumber: "1", ModelDescription: "d", ModelURL: "http://l/",
		SerialNumber: "2", PresentationURL: "http://p/",
	},
	MaxAge: time.Minute, RateUp: 1e9, RateDown: 1e10, Version1: true,
	Version1Clients: []netip.Prefix{netip.MustParsePrefix("192.168.1.20/32"), netip.MustParsePrefix("fe80::/10")},
}

// config is that of a server for it.
func (d *decider) config(log *slog.Logger, failed chan error) ServerConfig {
	return ServerConfig{Warden: d, Sockets: d, Settings: settings, Log: NewLog(log), Failed: func(err error) { failed <- err }, Turn: d.turn}
}

var loopback = netip.MustParseAddr("127.0.0.1")

// is has the warden be slow, or fail.
func (d *decider) is(slow chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow, d.err = slow, err
}

func (d *decider) waits() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slow
}

func (d *decider) note(format string, args ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf(format, args...))
	if d.asking != nil {
		d.asking()
	}
	return d.err
}

func (d *decider) taken() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := d.asked
	d.asked = nil
	return asked
}

func (d *decider) MapSet(ctx context.Context, r portmap.Request, n int) ([]portmap.Mapping, error) {
	if slow := d.waits(); slow != nil {
		began := time.Now()
		d.began <- struct{}{}
		select {
		case <-slow:
		case <-ctx.Done():
			d.gaveUp <- time.Since(began)
			return nil, ctx.Err()
		}
	}
	err := d.note("map %d %v %v", n, r, r.Nonce != nil)
	var all []portmap.Mapping
	for i := range n {
		all = append(all, portmap.Mapping{ID: uint64(i + 1), Client: r.Client, Transport: r.Transport, Internal: r.Internal, ExternalPort: r.ExternalPort})
	}
	return all, err
}

func (d *decider) Unmap(_ context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	return nil, d.note("unmap %v %d-%d", s.Client, s.FirstPort, s.LastPort)
}

var shownOne = portmap.Mapping{ID: 9, Client: portmap.Client{Addr: four, MAC: asker.MAC, Interface: "br-lan"}, Transport: portmap.TCP, Internal: netip.AddrPortFrom(four, 80), ExternalPort: 8080}

func (d *decider) Own(_ context.Context, id portmap.ClientID, from, n int) (portmap.Page, error) {
	return portmap.Page{Mappings: []portmap.Mapping{shownOne}, Count: 5, Revision: 6}, d.note("own %v %d %d", id, from, n)
}

func (d *decider) OwnPorts(_ context.Context, id portmap.ClientID, tr portmap.Transport, ports portmap.PortRange, from, n int) (portmap.Page, error) {
	return portmap.Page{Count: 7}, d.note("own ports %v %v %v %d %d", id, tr, ports, from, n)
}

func (d *decider) External(_ context.Context, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error) {
	return shownOne, d.note("external %v %d %v", tr, port, remotes)
}

func (d *decider) Internal(_ context.Context, id portmap.ClientID, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error) {
	return shownOne, d.note("internal %v %v %d %v", id, tr, port, remotes)
}

func (d *decider) Pinhole(_ context.Context, number uint16) (portmap.Mapping, error) {
	return shownOne, d.note("pinhole %d", number)
}

func (d *decider) Packets(_ context.Context, m portmap.Mapping) (uint64, error) {
	return 1 << 40, d.note("packets %d", m.ID)
}

func (d *decider) OutboundTimeout(tr portmap.Transport) (time.Duration, error) {
	return time.Hour, d.note("timeout %v", tr)
}

func (d *decider) Heard(mac portmap.MAC) bool             { return d.note("heard %v", mac) == nil }
func (d *decider) Suspect()                               { _ = d.note("suspect") }
func (d *decider) Resolve(lan string, a netip.Addr) error { return d.note("resolve %s %v", lan, a) }
func (d *decider) KeepEpochs(four, six time.Time)         { _ = d.note("keep %d %d", four.Unix(), six.Unix()) }
func (d *decider) NextBootID(last uint32) uint32          { _ = d.note("boot %d", last); return last + 5 }
func (d *decider) Uplink() (portmap.WAN, bool)            { d.mu.Lock(); defer d.mu.Unlock(); return d.wan, d.six }
func (d *decider) LANs() map[string]netif.LAN             { d.mu.Lock(); defer d.mu.Unlock(); return d.lans }
func (d *decider) Events(ctx context.Context) <-chan portmap.Event {
	out := make(chan portmap.Event)
	go func() {
		defer close(out)
		for {
			select {
			case ev := <-d.events:
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (d *decider) OpenDiscovery(_ context.Context, l netif.LAN, six bool) (frames.Socket, error) {
	err := d.note("discovery %s %v", l.Name, six)
	if err != nil {
		return frames.Socket{}, err
	}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	return frames.Socket{UDP: udp, Marks: true}, err
}

// OpenPortControl has a pipe for a packet socket, of which nothing is read.
func (d *decider) OpenPortControl(_ context.Context, l netif.LAN, six bool) (frames.Socket, error) {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		return frames.Socket{}, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return frames.Socket{}, err
	}
	_ = unix.Close(fds[1])
	return frames.Socket{UDP: udp, Packets: os.NewFile(uintptr(fds[0]), "frames")}, d.note("port control %s %v", l.Name, six)
}

func (d *decider) HTTP(_ context.Context, l netif.LAN, at netip.AddrPort) (net.Listener, error) {
	if err := d.note("http %s %v", l.Name, at); err != nil {
		return nil, err
	}
	return net.Listen("tcp4", "127.0.0.1:0")
}

// Dial connects to where it is told, as no warden does.
func (d *decider) Dial(ctx context.Context, lan string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if err := d.note("dial %s %v %v", lan, local, to); err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to.String())
}
