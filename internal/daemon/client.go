package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// client says who is behind an address on a LAN interface (the client is who the socket
// says). A host on the wire has a MAC, by which it is known; until the kernel has asked
// for it the error is portmap.ErrUnknownHost. Its name is what a DHCP server's lease for
// this MAC and address says.
func (g *gate) client(iface string, addr netip.Addr) (portmap.Client, error) {
	l, served := g.network.LANs()[iface]
	if !served {
		return portmap.Client{}, fmt.Errorf("%s is not served", iface)
	}
	c, known, err := g.lookUp(l, addr)
	if err == nil && !known && l.HasMAC(addr) {
		err = errors.Join(portmap.ErrUnknownHost, g.kernel.Resolve(l.Index, addr))
	}
	return c, err
}

// lookUp is client without asking for anybody; known says whether it has a MAC.
func (g *gate) lookUp(l netif.LAN, addr netip.Addr) (c portmap.Client, known bool, err error) {
	if !l.OnLink(addr) {
		return c, false, fmt.Errorf("%s is not on %s", addr, l.Name)
	}
	seen, known, err := g.kernel.Sight(l.Index, addr)
	if err != nil {
		return c, false, fmt.Errorf("neighbour %s: %w", addr, err)
	}
	return portmap.Client{
		Addr: addr, MAC: seen.MAC, Interface: l.Name, Name: g.names.Name(seen.MAC, addr, time.Now()),
		Unheard: known && !seen.Answered && !g.hosts.Heard(seen.MAC),
	}, known, nil
}

// device returns the key by which caps on connections and requests count who is behind
// an address on a LAN interface: one machine, whatever addresses it has taken, as the
// policy counts its mappings (abuse case K2). It is not known where the kernel has no
// MAC address for it: of hosts behind a router of the owner's, and on a link without
// such. The key is the address then.
func (g *gate) device(iface string, addr netip.Addr) (key string, known bool) {
	addr = addr.Unmap().WithZone("")
	if l, served := g.network.LANs()[iface]; served {
		if mac, known, err := g.kernel.Neighbour(l.Index, addr); err == nil && known {
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

// as returns the client that a host is when it names another address. One device
// has several of IPv6, and the neighbour table says that it is one, by its MAC
// (policy.same_device).
func (g *gate) as(c portmap.Client, target netip.Addr) (portmap.Client, error) {
	switch {
	case target == c.Addr:
		return c, nil
	case !g.cfg.Policy.SameDevice:
		return portmap.Client{}, errors.New("policy.same_device is false")
	case c.MAC == portmap.MAC{}:
		return portmap.Client{}, errNotSameDevice
	}
	for n := 0; ; n++ {
		owner, err := g.client(c.Interface, target)
		switch {
		case errors.Is(err, portmap.ErrUnknownHost) && n < maxLooks:
			time.Sleep(firstLook << n)
			continue
		case err != nil:
			return portmap.Client{}, err
		case owner.MAC != c.MAC:
			return portmap.Client{}, errNotSameDevice
		}
		owner.Via = c.Via
		return owner, nil
	}
}
