package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"portcullis/internal/netns"
	"portcullis/internal/random"
	"portcullis/internal/sockets"
)

// Inside is a LAN as its clients see it.
type Inside struct {
	Name string
	LAN  netip.Prefix // the gateway's address there, with the length of the network; invalid: no IPv4
	IPv6 bool         // it has a link-local address there
}

// Ask is what a client sends to the gateway itself.
type Ask struct {
	Transport string // "udp" or "tcp"
	Port      uint16
	IPv6      bool
}

// Asked returns what clients send, for the protocols that are enabled; web is the port of
// UPnP's descriptions, 0 without UPnP.
func Asked(web uint16, natpmp, pcp bool) (all []Ask) {
	for _, six := range []bool{false, true} {
		if web != 0 {
			all = append(all, Ask{"udp", searchPort, six}, Ask{"tcp", web, six})
		}
		if pcp || natpmp && !six {
			all = append(all, Ask{"udp", mappingPort, six})
		}
	}
	return all
}

// Dropped is what clients of a LAN send in vain.
type Dropped struct {
	LAN   string
	Asks  []Ask
	Blame []Blame // none where they do not arrive without these chains either
	Owner owner
}

const (
	searchPort  = 1900
	mappingPort = 5351
	mostLANs    = 16 // that are tried
)

var (
	searchGroup  = netip.MustParseAddr("239.255.255.250")
	searchGroup6 = netip.MustParseAddr("ff02::c")
)

// TryAsks has a host on each LAN of a copy of the machine ask the gateway, and returns what
// does not arrive, or is not answered.
func TryAsks(ctx context.Context, s Setup) ([]Dropped, error) {
	if len(s.Asks) == 0 {
		return nil, nil
	}
	gateway, err := netns.New("gateway")
	c := &copied{gateway: gateway}
	defer c.close()
	if err != nil {
		return nil, err
	}
	var all []*asker
	defer func() {
		for _, a := range all {
			a.host.Close()
		}
	}()
	for _, l := range s.LANs[:min(len(s.LANs), mostLANs)] {
		a, err := newAsker(c, l)
		if a != nil {
			all = append(all, a)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := c.load(ctx, s); err != nil {
		return nil, err
	}
	var found []Dropped
	for _, a := range all {
		for _, six := range []bool{false, true} {
			lost, err := a.lost(ctx, s.Asks, six)
			if err != nil {
				return found, err
			}
			if len(lost) == 0 {
				continue
			}
			d := Dropped{LAN: a.Name, Asks: lost}
			if d.Blame, err = a.blame(ctx, c, s, lost); err != nil {
				return found, err
			}
			d.Owner = ownerOf(s.Rules, d)
			found = append(found, d)
		}
	}
	return found, ctx.Err()
}

// asker is a LAN of the copy with a host on it.
type asker struct {
	Inside
	gateway, host  *netns.Space
	index, outward int // of the LAN in the gateway, and of the host's one interface
	addr           netip.Addr
	patience       *patience
}

// newAsker joins a host to the gateway. Each knows the MAC address of the other: whether
// neighbours are found is no question of our ports.
func newAsker(c *copied, l Inside) (a *asker, err error) {
	gateway := c.gateway
	a = &asker{Inside: l, gateway: gateway, patience: &c.patience}
	if a.host, err = netns.New("host"); err != nil {
		return nil, err
	}
	if err := wire(gateway, l.Name, a.host); err != nil {
		return a, err
	}
	if l.LAN.IsValid() {
		a.addr = other(l.LAN)
		err = errors.Join(gateway.Address(l.Name, l.LAN), a.host.Address("port", netip.PrefixFrom(a.addr, l.LAN.Bits())),
			a.host.Route("port", netip.MustParsePrefix("0.0.0.0/0"), l.LAN.Addr()))
	}
	if l.IPv6 && err == nil {
		err = errors.Join(gateway.Address(l.Name, near), a.host.Address("port", far))
	}
	if err != nil {
		return a, err
	}
	if err := errors.Join(gateway.Carries(l.Name), a.host.Carries("port")); err != nil {
		return a, err
	}
	a.index, err = gateway.Index(l.Name)
	if err == nil {
		a.outward, err = a.host.Index("port")
	}
	return a, errors.Join(err, gateway.Neighbours(l.Name, a.host, "port"), a.host.Neighbours("port", gateway, l.Name))
}

// lost returns what does not arrive, of one family.
func (a *asker) lost(ctx context.Context, asks []Ask, six bool) (lost []Ask, err error) {
	for _, k := range asks {
		if k.IPv6 == six && (six && a.IPv6 || !six && a.addr.IsValid()) {
			lost = append(lost, k)
		}
	}
	for range patientTries {
		if lost, err = a.unanswered(ctx, lost); len(lost) == 0 || err != nil {
			break
		}
	}
	return lost, err
}

// unanswered asks at once, and returns what does not arrive.
func (a *asker) unanswered(ctx context.Context, asks []Ask) ([]Ask, error) {
	passed, failed := make([]bool, len(asks)), make([]error, len(asks))
	var all sync.WaitGroup
	for i, k := range asks {
		all.Go(func() { passed[i], failed[i] = a.ask(ctx, k) })
	}
	all.Wait()
	var lost []Ask
	for i, k := range asks {
		if !passed[i] {
			lost = append(lost, k)
		}
	}
	return lost, errors.Join(failed...)
}

// blame finds the chains that drop one of them.
func (a *asker) blame(ctx context.Context, c *copied, s Setup, lost []Ask) ([]Blame, error) {
	gates, err := c.gates(ctx, s.Rules, askWay, a.to(lost[0]).Addr())
	if err != nil {
		return nil, err
	}
	found, err := blame(gates, func() (bool, error) {
		still, err := a.unanswered(ctx, lost)
		return len(still) == 0, err
	})
	for _, g := range gates { // for what the other family asks
		err = errors.Join(err, g.open(false))
	}
	return found, err
}

// to returns where a client sends.
func (a *asker) to(k Ask) netip.AddrPort {
	switch search := k.Transport == "udp" && k.Port == searchPort; {
	case search && k.IPv6:
		return netip.AddrPortFrom(searchGroup6.WithZone(strconv.Itoa(a.outward)), k.Port)
	case search:
		return netip.AddrPortFrom(searchGroup, k.Port)
	case k.IPv6:
		return netip.AddrPortFrom(near.Addr().WithZone(strconv.Itoa(a.outward)), k.Port)
	}
	return netip.AddrPortFrom(a.LAN.Addr(), k.Port)
}

// from returns where it sends from.
func (a *asker) from(k Ask) netip.AddrPort {
	if k.IPv6 {
		return netip.AddrPortFrom(far.Addr().WithZone(strconv.Itoa(a.outward)), 0)
	}
	return netip.AddrPortFrom(a.addr, 0)
}

// ask reports whether the gateway gets what a client sends, and the client its answer.
func (a *asker) ask(ctx context.Context, k Ask) (bool, error) {
	if k.Transport == "tcp" {
		return a.connect(ctx, k)
	}
	there, err := a.listen(k)
	if err != nil {
		return false, err
	}
	defer there.Close()
	here, err := a.host.UDP(a.from(k))
	if err != nil {
		return false, err
	}
	defer here.Close()
	word, buf := []byte(random.Text()), make([]byte, 64)
	began, patience := time.Now(), a.patience.now()
	arrives := func(at *net.UDPConn) (netip.AddrPort, bool) {
		if at.SetReadDeadline(time.Now().Add(patience/7)) != nil {
			return netip.AddrPort{}, false
		}
		n, from, err := at.ReadFromUDPAddrPort(buf)
		return from, err == nil && string(buf[:n]) == string(word)
	}
	for end := began.Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if _, err := here.WriteToUDPAddrPort(word, a.to(k)); err != nil {
			return false, nil // refused, or no way
		}
		from, ok := arrives(there)
		if !ok {
			continue
		}
		if _, err := there.WriteToUDPAddrPort(word, from); err != nil {
			return false, nil
		}
		if _, ok := arrives(here); ok {
			a.patience.passed(began)
			return true, nil
		}
	}
	return false, ctx.Err()
}

// listen opens the gateway's end of a datagram.
func (a *asker) listen(k Ask) (conn *net.UDPConn, err error) {
	if k.Port != searchPort {
		at := netip.AddrPortFrom(netip.IPv4Unspecified(), k.Port)
		if k.IPv6 {
			at = netip.AddrPortFrom(netip.IPv6Unspecified(), k.Port)
		}
		return a.gateway.UDP(at)
	}
	network, group := "udp4", searchGroup
	if k.IPv6 {
		network, group = "udp6", searchGroup6
	}
	err = a.gateway.In(func() error {
		conn, err = net.ListenMulticastUDP(network, &net.Interface{Index: a.index, Name: a.Name},
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, k.Port)))
		return err
	})
	return conn, err
}

// connect is ask for a connection.
func (a *asker) connect(ctx context.Context, k Ask) (bool, error) {
	at := netip.IPv4Unspecified()
	if k.IPv6 {
		at = netip.IPv6Unspecified()
	}
	var l net.Listener
	err := a.gateway.In(func() (err error) {
		l, err = sockets.ListenTCP(ctx, netip.AddrPortFrom(at, k.Port), nil)
		return err
	})
	if err != nil {
		return false, err
	}
	defer l.Close()
	var conn net.Conn
	began := time.Now()
	err = a.host.In(func() (err error) {
		patient, cancel := context.WithTimeout(ctx, a.patience.now())
		defer cancel()
		conn, err = sockets.DialTCP(patient, netip.Addr{}, a.to(k), nil)
		return err
	})
	if err != nil {
		return false, ctx.Err() // refused, or no way
	}
	a.patience.passed(began)
	return true, conn.Close()
}
