package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"portcullis/datagram"
	"portcullis/netif"
	"portcullis/pcp"
	"portcullis/portmap"
)

// portControl is the side of the gate that speaks NAT-PMP and PCP: one epoch, and
// a server on every LAN.
type portControl struct {
	g     *gate
	epoch *pcp.Epoch

	external netip.Addr // the last that there was
	down     bool       // there is none now
}

func newPortControl(g *gate) *portControl {
	return &portControl{g: g, epoch: pcp.NewEpoch(time.Now())}
}

// part opens the socket of a LAN.
func (c *portControl) part(ctx context.Context, l netif.LAN) (*part, error) {
	udp, err := pcp.Listen(ctx, l.Name)
	if err != nil {
		return nil, err
	}
	conn, err := datagram.NewConn(udp, l.Index)
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	s, err := pcp.New(pcp.Config{
		Logger: c.g.log, Ifname: l.Name, Ifindex: l.Index,
		NATPMP: c.g.cfg.PCP.NATPMP, PCP: c.g.cfg.PCP.PCP,
		Mapper: c.g.engine, View: c.g.network.View, Epoch: c.epoch,
		Identify:          func(a netip.Addr) (portmap.Client, error) { return c.g.client(l.Name, a) },
		RequestsPerSecond: c.g.cfg.Limits.RequestsPerSecond,
	}, conn)
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return &part{
		name: "port_control", run: s.Run, close: conn.Close, announce: s.Announce,
		keep: func(l netif.LAN) { s.SetAddresses([]netip.Addr{l.Addr}, l.Prefixes) },
	}, nil
}

// follow looks at the external address, and says whether clients must be told.
// Another one than before ends the epoch (RFC 6887 section 8.5); that and one that
// is back are announced (RFC 6886 section 3.2.1). It is not safe for concurrent
// use.
func (c *portControl) follow() (announce bool) {
	external := c.g.network.View().External
	if !external.IsValid() {
		c.down = true
		return false
	}
	moved := c.external.IsValid() && external != c.external
	if moved {
		c.epoch.Restart(time.Now())
		c.g.log.Info("the external address has changed", "was", c.external, "is", external)
	}
	announce = moved || c.down
	c.external, c.down = external, false
	return announce
}
