package lab

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Pinhole is what a control point asks WANIPv6FirewallControl:1 for. It must
// have found that service.
type Pinhole struct {
	Remote     string // an IPv6 address; "" is anybody
	RemotePort uint16 // 0 is any
	Client     string // an IPv6 address; "" is the control point's Source, or the host's Addr6
	Port       uint16
	Protocol   string        // "TCP" or "UDP"; anything else is sent as it is
	Lease      time.Duration // whole seconds
}

// key are the arguments that tell pinholes apart.
func (c *ControlPoint) key(p Pinhole) []string {
	if p.Client == "" {
		p.Client = c.Host.Addr6.String()
		if c.Source.IsValid() {
			p.Client = c.Source.String()
		}
	}
	switch p.Protocol {
	case "TCP":
		p.Protocol = "6"
	case "UDP":
		p.Protocol = "17"
	}
	return []string{
		"RemoteHost", p.Remote,
		"RemotePort", fmt.Sprint(p.RemotePort),
		"InternalClient", p.Client,
		"InternalPort", fmt.Sprint(p.Port),
		"Protocol", p.Protocol,
	}
}

// AddPinhole opens a pinhole and returns its UniqueID.
func (c *ControlPoint) AddPinhole(ctx context.Context, p Pinhole) (uint16, error) {
	out, err := c.Call(ctx, "AddPinhole", append(c.key(p), "LeaseTime", seconds(p.Lease))...)
	if err != nil {
		return 0, err
	}
	id, err := outNumber(out, "UniqueID", 16)
	return uint16(id), err
}

// UpdatePinhole changes the lease of a pinhole.
func (c *ControlPoint) UpdatePinhole(ctx context.Context, id uint16, lease time.Duration) error {
	_, err := c.Call(ctx, "UpdatePinhole", "UniqueID", fmt.Sprint(id), "NewLeaseTime", seconds(lease))
	return err
}

// DeletePinhole closes a pinhole.
func (c *ControlPoint) DeletePinhole(ctx context.Context, id uint16) error {
	_, err := c.Call(ctx, "DeletePinhole", "UniqueID", fmt.Sprint(id))
	return err
}

// PinholePackets returns how many packets a pinhole has let in.
func (c *ControlPoint) PinholePackets(ctx context.Context, id uint16) (uint32, error) {
	out, err := c.Call(ctx, "GetPinholePackets", "UniqueID", fmt.Sprint(id))
	if err != nil {
		return 0, err
	}
	n, err := outNumber(out, "PinholePackets", 32)
	return uint32(n), err
}

// PinholeWorks asks CheckPinholeWorking.
func (c *ControlPoint) PinholeWorks(ctx context.Context, id uint16) (bool, error) {
	out, err := c.Call(ctx, "CheckPinholeWorking", "UniqueID", fmt.Sprint(id))
	if err != nil {
		return false, err
	}
	return outBoolean(out, "IsWorking")
}

// FirewallStatus reports whether there is a firewall, and whether it may be opened.
func (c *ControlPoint) FirewallStatus(ctx context.Context) (enabled, allowed bool, err error) {
	out, err := c.Call(ctx, "GetFirewallStatus")
	if err != nil {
		return false, false, err
	}
	if enabled, err = outBoolean(out, "FirewallEnabled"); err != nil {
		return false, false, err
	}
	allowed, err = outBoolean(out, "InboundPinholeAllowed")
	return enabled, allowed, err
}

// OutboundPinholeTimeout returns how long answers from outside are let in. The
// lease is not asked for.
func (c *ControlPoint) OutboundPinholeTimeout(ctx context.Context, p Pinhole) (time.Duration, error) {
	out, err := c.Call(ctx, "GetOutboundPinholeTimeout", c.key(p)...)
	if err != nil {
		return 0, err
	}
	n, err := outNumber(out, "OutboundPinholeTimeout", 32)
	return time.Duration(n) * time.Second, err
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }

func outNumber(out map[string]string, name string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(out[name], 10, bits)
	if err != nil {
		return 0, fmt.Errorf("lab: %s %q", name, out[name])
	}
	return n, nil
}

func outBoolean(out map[string]string, name string) (bool, error) {
	switch out[name] {
	case "1":
		return true, nil
	case "0":
		return false, nil
	}
	return false, fmt.Errorf("lab: %s %q", name, out[name])
}
