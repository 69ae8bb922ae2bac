package front

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"portcullis/internal/datagram"
	"portcullis/internal/identify"
	"portcullis/internal/listeners"
	"portcullis/internal/netif"
	"portcullis/pcp"
	"portcullis/portmap"
)

// portControl speaks NAT-PMP and PCP: an epoch for
// each IP family, and a server on every LAN in each.
type portControl struct {
	cfg    *Config
	who    *identify.Identifier
	epochs *pcp.Epochs
	kept   bool // the epochs are written down
}

func newPortControl(cfg *Config, who *identify.Identifier) *portControl {
	return &portControl{cfg: cfg, who: who, epochs: pcp.NewEpochs(time.Now())}
}

// resume lets the epochs of the last run go on.
func (c *portControl) resume(four, six time.Time) {
	c.epochs.V4.Restart(four)
	c.epochs.V6.Restart(six)
}

// server is that of a LAN in one family.
func (c *portControl) server(ctx context.Context, at listeners.Key, l netif.LAN) (*listeners.Server, error) {
	epoch, local := c.epochs.V4, netif.LAN.IPv4
	if at.IPv6 {
		epoch, local = c.epochs.V6, netif.LAN.IPv6
	}
	conn, err := c.cfg.Sockets.PortControl(ctx, l, at.IPv6)
	if err != nil {
		return nil, err
	}
	s, err := pcp.New(pcp.Config{
		Logger: c.cfg.Log, Ifname: l.Name, Ifindex: l.Index,
		NATPMP: c.cfg.NATPMP && !at.IPv6, PCP: c.cfg.PCP,
		Mapper: c.cfg.Warden, Epoch: epoch,
		External: c.external,
		Identify: func(p datagram.Packet) (portmap.Client, datagram.Account, error) {
			return c.who.Sender(l.Name, p)
		},
		Seek:              func(p datagram.Packet) { c.who.Seek(l.Name, p) },
		RequestsPerSecond: c.cfg.RequestsPerSecond,
	}, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &listeners.Server{
		Name: "NAT-PMP and PCP", Run: s.Run, Close: conn.Close, Announce: s.Announce, Pulse: s.Pulse,
		Follow: func(l netif.LAN) { s.SetAddresses(local(l), l.Prefixes) },
	}, nil
}

// external is the address that clients are told.
func (c *portControl) external() netip.Addr {
	wan, _ := c.cfg.Warden.Uplink()
	return wan.External
}

// follow looks at what mappings depend on, and reports in which family clients must
// be told. It is not safe for concurrent use.
func (c *portControl) follow() (four, six bool) {
	began, began6 := c.epochs.V4.Began(), c.epochs.V6.Began()
	wan, up6 := c.cfg.Warden.Uplink()
	n := pcp.Network{External: wan.External, Up6: up6}
	for _, l := range c.cfg.Warden.LANs() {
		n.Prefixes = append(n.Prefixes, l.Prefixes...)
	}
	turn := c.epochs.Follow(time.Now(), n)
	if turn.Was.IsValid() {
		c.cfg.Log.Debug("external address changed", "was", turn.Was, "is", n.External)
	}
	for _, p := range turn.Lost {
		c.cfg.Log.Info("IPv6 network left the LAN", "network", p)
	}
	if !c.kept || c.epochs.V4.Began() != began || c.epochs.V6.Began() != began6 {
		c.kept = true
		c.cfg.Warden.KeepEpochs(c.epochs.V4.Began(), c.epochs.V6.Began())
	}
	return turn.Announce4, turn.Announce6
}
