package igd

import (
	"context"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portcullis/portmap"
	"portcullis/soap"
)

// The lease of a pinhole, in seconds. Outside of it is 601, which is what a stated
// range means; others send 402 (CHOICE-13).
const (
	minPinholeLease = 1
	maxPinholeLease = 86400
)

// anyProtocol is the wildcard among the protocol numbers.
const anyProtocol = 65535

// whenAllowed refuses all that names or makes a pinhole while none can be open: 703,
// InboundPinholeNotAllowed.
func whenAllowed(do func(*call) ([]string, error)) func(*call) ([]string, error) {
	return func(c *call) ([]string, error) {
		if !c.device.allowed() {
			return nil, fail(codeNoInbound)
		}
		return do(c)
	}
}

// addPinhole opens one, or renews the one with the same five arguments under the
// number it has.
func addPinhole(c *call) ([]string, error) {
	r, err := c.pinholeRequest()
	if err != nil {
		return nil, err
	}
	m, err := c.device.mapper.Map(c.ctx, r)
	if err != nil {
		return nil, err
	}
	return []string{strconv.Itoa(int(m.Number))}, nil
}

// pinholeRequest builds the wish that AddPinhole states. It is made in the name
// of whom the target belongs to, where that is the caller or the same device;
// else in the caller's own, and the engine refuses it: so the log has who
// wanted what (abuse case J1).
func (c *call) pinholeRequest() (portmap.Request, error) {
	target, err := c.pinholeTarget()
	if err != nil {
		return portmap.Request{}, err
	}
	remotes, err := c.pinholeRemotes()
	if err != nil {
		return portmap.Request{}, err
	}
	lease, err := c.pinholeLease("LeaseTime")
	if err != nil {
		return portmap.Request{}, err
	}
	port := c.port("InternalPort")
	if port == 0 {
		return portmap.Request{}, fail(codeNoAnyInternal)
	}
	if c.port("Protocol") == anyProtocol {
		return portmap.Request{}, fail(codeNoAnyProtocol)
	}
	transport, err := c.pinholeTransport()
	if err != nil {
		return portmap.Request{}, err
	}
	client, own := c.clientAt(target)
	if !own {
		client = c.client
	}
	return portmap.Request{
		Client: client, Kind: portmap.Pinhole6, Transport: transport,
		Internal: netip.AddrPortFrom(target, port), Remotes: remotes,
		Lifetime: lease, ZeroIsEndless: true, KeepDescription: true,
	}, nil
}

// pinholeTarget reads InternalClient: an IPv6 address as such, never a name
// (abuse case J2). Empty would be every host of the LAN.
func (c *call) pinholeTarget() (netip.Addr, error) {
	s := c.text("InternalClient")
	if strings.TrimSpace(s) == "" {
		return netip.Addr{}, fail(codeNoWildcardClient)
	}
	a, ok := literal6(s)
	if !ok {
		return netip.Addr{}, &fault{code: codeInvalidArgs, detail: "InternalClient is not an IPv6 address"}
	}
	return a, nil
}

// pinholeRemotes reads RemoteHost and RemotePort. Empty is anybody, and so are
// "*" (abuse case J3) and "::/0", which clients send; other prefixes are not in
// the book. A restriction to a port alone is one to the whole address space.
func (c *call) pinholeRemotes() ([]portmap.Remote, error) {
	port := c.port("RemotePort")
	prefix := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	switch s := strings.TrimSpace(c.text("RemoteHost")); s {
	case "", "*", "::/0":
		if port == 0 {
			return nil, nil
		}
	default:
		a, ok := literal6(s)
		if !ok {
			return nil, &fault{code: codeInvalidArgs, detail: "RemoteHost is not an IPv6 address"}
		}
		prefix = netip.PrefixFrom(a, a.BitLen())
	}
	return []portmap.Remote{{Prefix: prefix, Port: port}}, nil
}

// literal6 reads an IPv6 address without a zone. An IPv4 address that is written
// as one is none (abuse case A8).
func literal6(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil && a.Is6() && !a.Is4In6() && a.Zone() == ""
}

func (c *call) pinholeLease(name string) (time.Duration, error) {
	n := c.number(name)
	if n < minPinholeLease || n > maxPinholeLease {
		return 0, &fault{code: codeOutOfRange, detail: name + " must be 1 to 86400 seconds"}
	}
	return time.Duration(n) * time.Second, nil
}

func (c *call) pinholeTransport() (portmap.Transport, error) {
	switch c.port("Protocol") {
	case uint16(portmap.TCP):
		return portmap.TCP, nil
	case uint16(portmap.UDP):
		return portmap.UDP, nil
	}
	return 0, fail(codeNoProtocol)
}

// protocolNumber returns the number of the two protocols that have a name here,
// and everything else as it is.
func protocolNumber(s string) string {
	for _, t := range []portmap.Transport{portmap.TCP, portmap.UDP} {
		if strings.EqualFold(s, t.String()) {
			return strconv.Itoa(int(t))
		}
	}
	return s
}

// clientAt returns the caller as the client at an address: its own, or another one
// of the same device where the gateway's owner allows that.
func (c *call) clientAt(target netip.Addr) (portmap.Client, bool) {
	if target == c.client.Addr {
		return c.client, true
	}
	client, err := c.device.as(c.client, target)
	if err != nil || client.Addr != target {
		return portmap.Client{}, false
	}
	client.Via = c.client.Via
	return client, true
}

// pinhole returns what UniqueID names, and its client, if that is the caller. One
// that is another's is answered like one that does not exist, 704 and not 606:
// numbers are random, and a host that tries them all learns nothing of the
// pinholes of others (abuse case J4).
func (c *call) pinhole() (portmap.Mapping, portmap.Client, error) {
	m, err := c.device.mapper.Pinhole(c.ctx, c.port("UniqueID"))
	if err != nil { // that there is none is 704 too
		return portmap.Mapping{}, portmap.Client{}, err
	}
	client, own := c.clientAt(m.Internal.Addr())
	if !own || client.ID() != m.Client.ID() {
		return portmap.Mapping{}, portmap.Client{}, fail(codeNoPinhole)
	}
	return m, client, nil
}

// updatePinhole asks for the pinhole that there is once more, with another
// lease, so that the policy has its say again.
func updatePinhole(c *call) ([]string, error) {
	lease, err := c.pinholeLease("NewLeaseTime")
	if err != nil {
		return nil, err
	}
	m, client, err := c.pinhole()
	if err != nil {
		return nil, err
	}
	got, err := c.device.mapper.Map(c.ctx, portmap.Request{
		Client: client, Kind: m.Kind, Transport: m.Transport, Internal: m.Internal, Remotes: m.Remotes,
		Lifetime: lease, Disabled: m.Disabled, Description: m.Description, ZeroIsEndless: true, KeepDescription: true,
	})
	if err != nil {
		return nil, err
	}
	if got.ID != m.ID {
		// It ended in between. What was made instead has a number that nobody knows.
		// Nor may it stay where the client's time is over.
		if _, err := c.device.mapper.Unmap(context.WithoutCancel(c.ctx), portmap.Selector{Client: client, ID: got.ID}); err != nil {
			return nil, err
		}
		return nil, fail(codeNoPinhole)
	}
	return nil, nil
}

func deletePinhole(c *call) ([]string, error) {
	m, client, err := c.pinhole()
	if err != nil {
		return nil, err
	}
	_, err = c.device.mapper.Unmap(c.ctx, portmap.Selector{Client: client, ID: m.ID})
	return nil, err
}

// pinholePackets returns how many packets have come in by the pinhole that
// UniqueID names.
func (c *call) pinholePackets() (uint64, error) {
	m, _, err := c.pinhole()
	if err != nil {
		return 0, err
	}
	return c.device.packets(c.ctx, m)
}

// getPinholePackets starts again at 0 after 2^32-1, as the other counters do.
func getPinholePackets(c *call) ([]string, error) {
	n, err := c.pinholePackets()
	if err != nil {
		return nil, err
	}
	return []string{strconv.FormatUint(n&math.MaxUint32, 10)}, nil
}

// checkPinholeWorking knows that a pinhole works when something has come in by
// it; before that it cannot tell.
func checkPinholeWorking(c *call) ([]string, error) {
	n, err := c.pinholePackets()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fail(codeNoTraffic)
	}
	return []string{soap.FormatBoolean(true)}, nil
}

// getOutboundPinholeTimeout returns how long answers are let in. It depends on the
// protocol alone and is the same for every host, so that anyone may ask, for
// any host or all of them.
func getOutboundPinholeTimeout(c *call) ([]string, error) {
	if _, err := c.pinholeRemotes(); err != nil {
		return nil, err
	}
	if strings.TrimSpace(c.text("InternalClient")) != "" {
		if _, err := c.pinholeTarget(); err != nil {
			return nil, err
		}
	}
	transport, err := c.pinholeTransport()
	if err != nil {
		return nil, err
	}
	d, err := c.device.timeout(transport)
	if err != nil {
		return nil, err
	}
	return []string{strconv.FormatInt(min(max(0, int64(d/time.Second)), math.MaxUint32), 10)}, nil
}
