package identify

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Kernel is what an Identifier asks about neighbours and routes; netif.Kernel is one.
type Kernel interface {
	Neighbour(ifindex int, addr netip.Addr) (mac [6]byte, known bool, err error)
	Sight(ifindex int, addr netip.Addr) (netif.Sighting, bool, error)
	NextHop(from, to netip.Addr) (ifindex int, next netip.Addr, err error)
	MACEnding(ifindex int, ending []byte) (mac [6]byte, found bool, err error)
}

// Config is what an Identifier needs; every field must be set.
type Config struct {
	Log    *slog.Logger
	Kernel Kernel
	LANs   func() map[string]netif.LAN // as they are now, by interface
	Heard  func(portmap.MAC) bool      // has a device answered the kernel in this run
	// Resolve has the kernel ask an interface for a host, without waiting for the answer.
	Resolve func(iface string, addr netip.Addr) error
	// SameDevice lets a client speak for other addresses of its device
	// (policy.same_device).
	SameDevice bool
	Suspect    func() // has the rules looked at, if any, that show which machine sent a frame
}

// Identifier identifies hosts. Its methods are safe for concurrent use.
type Identifier struct {
	cfg Config

	forged, unseen reporter // of datagrams that somebody else sent, or nobody knows who
	looks          reporter // bounds Suspect
}

// New returns an Identifier.
func New(cfg Config) *Identifier { return &Identifier{cfg: cfg} }

// Client returns who is behind an address on a LAN interface (the client is who the socket
// says). A host on the wire has a MAC, by which it is known; until the kernel has asked
// for it the error is portmap.ErrUnknownHost.
func (i *Identifier) Client(iface string, addr netip.Addr) (portmap.Client, error) {
	l, served := i.cfg.LANs()[iface]
	if !served {
		return portmap.Client{}, fmt.Errorf("%s is not served", iface)
	}
	c, known, err := i.lookUp(l, addr)
	if err == nil && !known && l.HasMAC(addr) {
		err = errors.Join(portmap.ErrUnknownHost, i.cfg.Resolve(iface, addr))
	}
	return c, err
}

// lookUp is Client without asking for anybody; known says whether it has a MAC.
func (i *Identifier) lookUp(l netif.LAN, addr netip.Addr) (c portmap.Client, known bool, err error) {
	if !l.OnLink(addr) {
		return c, false, fmt.Errorf("%s is not on %s", addr, l.Name)
	}
	seen, known, err := i.cfg.Kernel.Sight(l.Index, addr)
	if err != nil {
		return c, false, fmt.Errorf("neighbour %s: %w", addr, err)
	}
	return portmap.Client{
		Addr: addr, MAC: seen.MAC, Interface: l.Name,
		Unheard: known && !seen.Answered && !i.cfg.Heard(seen.MAC),
	}, known, nil
}

// Device returns the key by which caps on connections and requests count who is behind
// an address on a LAN interface: one machine, whatever addresses it has taken, as the
// policy counts its mappings (abuse case K2). It is not known where the kernel has no
// MAC address for it: of hosts behind a router of the owner's, and on a link without
// such. The key is the address then.
func (i *Identifier) Device(iface string, addr netip.Addr) (key string, known bool) {
	addr = addr.Unmap().WithZone("")
	if l, served := i.cfg.LANs()[iface]; served {
		if mac, known, err := i.cfg.Kernel.Neighbour(l.Index, addr); err == nil && known {
			return iface + " " + portmap.MAC(mac).String(), true
		}
	}
	return iface + " " + addr.String(), false
}

// How long a request waits for a device to answer for another address of its
// own: after 10 ms, 20 ms and so on, 310 ms in all.
const (
	firstLook = 10 * time.Millisecond
	maxLooks  = 5
)

// errNotSameDevice is why a client may not speak for an address.
var errNotSameDevice = errors.New("the address does not belong to the same device")

// As returns the client that a host is when it names another address. One device
// has several of IPv6, and the neighbour table says that it is one, by its MAC.
func (i *Identifier) As(c portmap.Client, target netip.Addr) (portmap.Client, error) {
	switch {
	case target == c.Addr:
		return c, nil
	case !i.cfg.SameDevice:
		return portmap.Client{}, errors.New("policy.same_device is false")
	case c.MAC == portmap.MAC{}:
		return portmap.Client{}, errNotSameDevice
	}
	for n := 0; ; n++ {
		other, err := i.Client(c.Interface, target)
		switch {
		case errors.Is(err, portmap.ErrUnknownHost) && n < maxLooks:
			time.Sleep(firstLook << n)
			continue
		case err != nil:
			return portmap.Client{}, err
		case other.MAC != c.MAC:
			return portmap.Client{}, errNotSameDevice
		}
		other.Via = c.Via
		return other, nil
	}
}
