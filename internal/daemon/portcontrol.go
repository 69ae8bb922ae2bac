package daemon

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"portcullis/firewall/witness"
	"portcullis/internal/datagram"
	"portcullis/internal/listeners"
	"portcullis/internal/netif"
	"portcullis/pcp"
	"portcullis/portmap"
)

// portControl is the side of the gate that speaks NAT-PMP and PCP: an epoch for
// each IP family, and a server on every LAN in each.
type portControl struct {
	g           *gate
	epoch       *pcp.Epoch
	epoch6      *pcp.Epoch
	external    netip.Addr // the last that there was
	down, down6 bool       // there is no way out now
	networks    map[netip.Prefix]struct{}
	kept        bool // the epochs are written down
}

func newPortControl(g *gate) *portControl {
	now := time.Now()
	return &portControl{g: g, epoch: pcp.NewEpoch(now), epoch6: pcp.NewEpoch(now)}
}

// server opens the socket of a LAN in one family.
func (c *portControl) server(ctx context.Context, at listeners.Key, l netif.LAN) (*listeners.Server, error) {
	listen, newConn, epoch, local := pcp.Listen, datagram.NewConn, c.epoch, netif.LAN.IPv4
	if at.IPv6 {
		listen, newConn, epoch, local = pcp.Listen6, datagram.NewConn6, c.epoch6, netif.LAN.IPv6
	}
	udp, err := listen(ctx, l.Name)
	if err != nil {
		return nil, err
	}
	conn, err := newConn(udp, l.Index)
	if err == nil && l.MAC != [6]byte{} {
		conn, err = c.g.witness.Conn(udp, conn, witness.Place{Ifindex: l.Index, IPv6: at.IPv6, Port: pcp.Port})
	}
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	s, err := pcp.New(pcp.Config{
		Logger: c.g.log, Ifname: l.Name, Ifindex: l.Index,
		NATPMP: c.g.cfg.PCP.NATPMP && !at.IPv6, PCP: c.g.cfg.PCP.PCP,
		Mapper: c.g.engine, View: c.g.network.View, Epoch: epoch,
		Identify: func(p datagram.Packet) (portmap.Client, datagram.Account, error) {
			return c.g.sender(l.Name, p)
		},
		Seek:              func(p datagram.Packet) { c.g.seek(l.Name, p) },
		RequestsPerSecond: c.g.cfg.Limits.RequestsPerSecond,
	}, conn)
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return &listeners.Server{
		Name: "port_control", Run: s.Run, Close: conn.Close, Announce: s.Announce,
		Follow: func(l netif.LAN) { s.SetAddresses(local(l), l.Prefixes) },
	}, nil
}

// follow looks at what mappings depend on, and says in which family clients must
// be told. It is not safe for concurrent use.
func (c *portControl) follow() (four, six bool) {
	began, began6 := c.epoch.Began(), c.epoch6.Began()
	four, six = c.follow4(), c.follow6()
	if !c.kept || c.epoch.Began() != began || c.epoch6.Began() != began6 {
		c.kept = true
		c.g.state.keepEpochs(c.epoch, c.epoch6)
	}
	return four, six
}

// follow4 looks at the external address. Another one than before ends the epoch
// (RFC 6887 section 8.5); that and one that is back are announced (RFC 6886
// section 3.2.1).
func (c *portControl) follow4() (announce bool) {
	external := c.g.network.View().WAN().External
	if !external.IsValid() {
		c.down = true
		return false
	}
	moved := c.external.IsValid() && external != c.external
	if moved {
		c.epoch.Restart(time.Now())
		c.g.log.Info("external address changed", "was", c.external, "is", external)
	}
	announce = moved || c.down
	c.external, c.down = external, false
	return announce
}

// follow6 looks at the networks of the LANs. One that is gone has taken pinholes
// with it, which ends the epoch; that and a way to the Internet that is back are
// announced.
func (c *portControl) follow6() (announce bool) {
	networks := make(map[netip.Prefix]struct{})
	for _, l := range c.g.network.roles.Load().LAN {
		for _, p := range l.Prefixes {
			if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() {
				networks[p] = struct{}{}
			}
		}
	}
	lost := false
	for p := range c.networks {
		if _, still := networks[p]; !still {
			lost = true
			c.g.log.Info("IPv6 network left the LAN", "network", p)
		}
	}
	c.networks = networks
	if lost {
		c.epoch6.Restart(time.Now())
	}
	up := c.g.network.View().WAN6Up
	announce = lost || up && c.down6
	c.down6 = !up
	return announce
}
