package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"portcullis/firewall/witness"
	"portcullis/internal/datagram"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Why a datagram is not answered. Silence, and not NOT_AUTHORIZED, because an answer
// would go to the host whose address was abused.
var (
	errForged = errors.New("another machine sent it than has its source address")
	errUnseen = errors.New("it was not seen which machine sent it")
	errNoWay  = errors.New("its sender is not behind this interface")
)

// sender says who sent a datagram, and whom it is charged to (abuse cases C11, H9).
// Its source address is only a claim: the frame must have come from the machine that
// has the address, or from the router behind which it is. A link without MAC
// addresses shows nothing but the interface, which is the device's own there.
func (g *gate) sender(iface string, p datagram.Packet) (portmap.Client, datagram.Account, error) {
	l, served := g.network.LANs()[iface]
	if !served {
		return portmap.Client{}, datagram.Account{}, fmt.Errorf("%s is not served", iface)
	}
	client, known, err := g.lookUp(l, p.Source.Addr())
	switch {
	case err != nil:
		return client, datagram.Account{}, err
	case l.MAC == [6]byte{}:
		return client, datagram.Account{Device: datagram.Device{Addr: client.Addr}}, nil
	case !p.Sender.Seen():
		g.unseen(l, p)
		return client, datagram.Account{}, errUnseen
	}
	account := datagram.Account{Device: datagram.Device{Sender: p.Sender}}
	mac := client.MAC
	if !l.HasMAC(client.Addr) {
		account.Class, account.Device.Addr = datagram.Routed, client.Addr
		if mac, known, err = g.router(l, p); err != nil {
			return client, account, err
		}
	}
	switch {
	case !known:
		return client, datagram.Account{Device: datagram.Device{Sender: p.Sender}, Class: datagram.Stranger}, portmap.ErrUnknownHost
	case !p.Sender.Is(mac):
		g.forged(l, p, mac)
		g.seek(iface, p) // who really has the address by now is known soon
		return client, account, errForged
	}
	return client, account, nil
}

// router returns the MAC address by which a host is reached that is not on the link
// itself.
func (g *gate) router(l netif.LAN, p datagram.Packet) (mac portmap.MAC, known bool, err error) {
	hop, err := g.hop(l, p)
	if err != nil {
		return mac, false, err
	}
	return g.kernel.Neighbour(l.Index, hop)
}

// hop returns the machine on the link to which answers to a datagram go.
func (g *gate) hop(l netif.LAN, p datagram.Packet) (netip.Addr, error) {
	source := p.Source.Addr()
	if l.HasMAC(source) {
		return source, nil
	}
	ifindex, next, err := g.kernel.NextHop(p.Destination, source)
	if err == nil && ifindex != l.Index {
		err = errNoWay
	}
	return next, err
}

// seek has the kernel ask for the machine to which answers to a datagram would go.
func (g *gate) seek(iface string, p datagram.Packet) {
	l, served := g.network.LANs()[iface]
	if !served {
		return
	}
	hop, err := g.hop(l, p)
	if err == nil {
		err = g.kernel.Resolve(l.Index, hop)
	}
	if err != nil {
		g.log.Debug("cannot ask for a host", "interface", iface, "address", p.Source.Addr(), "err", err)
	}
}

// account says whom a search is charged to. It needs no identity: an answer changes
// nothing, and who hears it must have an address of the link.
func (g *gate) account(iface string, p datagram.Packet) datagram.Account {
	l, addr := g.network.LANs()[iface], p.Source.Addr()
	a := datagram.Account{Device: datagram.Device{Sender: p.Sender}, Class: datagram.Stranger}
	mac, known, err := g.kernel.Neighbour(l.Index, addr)
	switch known = known && err == nil; {
	case l.MAC == [6]byte{}:
		return datagram.Account{Device: datagram.Device{Addr: addr}}
	case p.Sender.Seen() && p.Sender.Is(mac):
		a.Class = datagram.Host
	case p.Sender.Seen():
	case known:
		a.Device.Sender, a.Class = datagram.Sender{MAC: mac, Known: len(mac)}, datagram.Host
	default:
		a.Device.Addr = addr
	}
	return a
}

// forged tells the owner who sent a datagram in whose name.
func (g *gate) forged(l netif.LAN, p datagram.Packet, owner portmap.MAC) {
	leftOut, now := g.reports.forged.allow()
	if !now {
		return
	}
	from := p.Sender
	mac, found, err := g.kernel.MACEnding(l.Index, from.MAC[len(from.MAC)-from.Known:])
	if err == nil && found {
		from = datagram.Sender{MAC: mac, Known: len(mac)}
	}
	g.log.Warn("forged request ignored: its source address is another machine's",
		"interface", l.Name, "address", p.Source.Addr(), "mac", owner, "sender", from, "left_out", leftOut)
}

// unseen has our rules looked at, where it is rules that see frames: somebody may have
// changed them.
func (g *gate) unseen(l netif.LAN, p datagram.Packet) {
	if leftOut, now := g.reports.unseen.allow(); now {
		g.log.Warn("request ignored: its sender cannot be verified",
			"interface", l.Name, "address", p.Source.Addr(), "left_out", leftOut)
	}
	if way, _ := g.witness.Way(); way != witness.PacketSocket {
		if _, now := g.reports.looks.allow(); now { // a client must not have us look without end
			g.rules.Suspect()
		}
	}
}

// How often such a thing is reported, or looked after: so many at once, then one in a
// minute.
const (
	reportBurst = 3
	reportEvery = time.Minute
)

// reports bound what is said of hosts that others speak for.
type reports struct{ forged, unseen, looks reporter }

// reporter bounds one kind of line.
type reporter struct {
	mu      sync.Mutex    // guards what follows
	lines   *rate.Limiter // nil before the first
	leftOut int           // since the last line
}

// allow reports whether there may be a line now, and how many were left out.
func (r *reporter) allow() (leftOut int, now bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lines == nil {
		r.lines = rate.NewLimiter(rate.Every(reportEvery), reportBurst)
	}
	if !r.lines.Allow() {
		r.leftOut++
		return 0, false
	}
	leftOut, r.leftOut = r.leftOut, 0
	return leftOut, true
}
