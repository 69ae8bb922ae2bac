package daemon

import (
	"context"
	"errors"
	"time"

	"portcullis/firewall/witness"
	"portcullis/internal/datagram"
	"portcullis/internal/journal"
	"portcullis/internal/listeners"
	"portcullis/internal/netif"
	"portcullis/pcp"
	"portcullis/portmap"
)

// portControl is the side of the gate that speaks NAT-PMP and PCP: an epoch for
// each IP family, and a server on every LAN in each.
type portControl struct {
	g      *gate
	epochs *pcp.Epochs
	kept   bool // the epochs are written down
}

func newPortControl(g *gate) *portControl {
	return &portControl{g: g, epochs: pcp.NewEpochs(time.Now())}
}

// resume lets the epochs of the last run go on.
func (c *portControl) resume(e journal.Epochs) {
	c.epochs.V4.Restart(e.V4)
	c.epochs.V6.Restart(e.V6)
}

// server opens the socket of a LAN in one family.
func (c *portControl) server(ctx context.Context, at listeners.Key, l netif.LAN) (*listeners.Server, error) {
	listen, newConn, epoch, local := pcp.Listen, datagram.NewConn, c.epochs.V4, netif.LAN.IPv4
	if at.IPv6 {
		listen, newConn, epoch, local = pcp.Listen6, datagram.NewConn6, c.epochs.V6, netif.LAN.IPv6
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
			return c.g.identify.Sender(l.Name, p)
		},
		Seek:              func(p datagram.Packet) { c.g.identify.Seek(l.Name, p) },
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

// follow looks at what mappings depend on, and reports in which family clients must
// be told. It is not safe for concurrent use.
func (c *portControl) follow() (four, six bool) {
	began, began6 := c.epochs.V4.Began(), c.epochs.V6.Began()
	v := c.g.network.View()
	n := pcp.Network{External: v.WAN().External, Up6: v.WAN6Up}
	for _, l := range c.g.network.Roles().LAN {
		n.Prefixes = append(n.Prefixes, l.Prefixes...)
	}
	turn := c.epochs.Follow(time.Now(), n)
	if turn.Was.IsValid() {
		c.g.log.Info("external address changed", "was", turn.Was, "is", n.External)
	}
	for _, p := range turn.Lost {
		c.g.log.Info("IPv6 network left the LAN", "network", p)
	}
	if !c.kept || c.epochs.V4.Began() != began || c.epochs.V6.Began() != began6 {
		c.kept = true
		c.g.store.KeepEpochs(journal.Epochs{V4: c.epochs.V4.Began(), V6: c.epochs.V6.Began()})
	}
	return turn.Announce4, turn.Announce6
}
