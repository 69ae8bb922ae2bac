package identify

import (
	"errors"
	"fmt"
	"net/netip"

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

// Sender returns who sent a datagram, and whom it is charged to (abuse cases C11, H9).
// Its source address is only a claim: the frame must have come from the machine that
// has the address, or from the router behind which it is. A link without MAC
// addresses shows nothing but the interface, which is the device's own there.
func (i *Identifier) Sender(iface string, p datagram.Packet) (portmap.Client, datagram.Account, error) {
	l, served := i.cfg.LANs()[iface]
	if !served {
		return portmap.Client{}, datagram.Account{}, fmt.Errorf("%s is not served", iface)
	}
	client, known, err := i.lookUp(l, p.Source.Addr())
	switch {
	case err != nil:
		return client, datagram.Account{}, err
	case l.MAC == [6]byte{}:
		return client, datagram.Account{Device: datagram.Device{Interface: iface, Addr: client.Addr}}, nil
	case !p.Sender.Seen():
		i.reportUnseen(l, p)
		return client, datagram.Account{}, errUnseen
	}
	account := datagram.Account{Device: datagram.Device{Interface: iface, Sender: p.Sender}}
	mac := client.MAC
	if !l.HasMAC(client.Addr) {
		account.Class, account.Device.Addr = datagram.Routed, client.Addr
		if mac, known, err = i.router(l, p); err != nil {
			return client, account, err
		}
	}
	switch {
	case !known:
		return client, datagram.Account{Device: datagram.Device{Interface: iface, Sender: p.Sender}, Class: datagram.Stranger}, portmap.ErrUnknownHost
	case !p.Sender.Is(mac):
		i.reportForged(l, p, mac)
		i.Seek(iface, p) // who really has the address by now is known soon
		return client, account, errForged
	}
	return client, account, nil
}

// router returns the MAC address by which a host is reached that is not on the link
// itself.
func (i *Identifier) router(l netif.LAN, p datagram.Packet) (mac portmap.MAC, known bool, err error) {
	hop, err := i.hop(l, p)
	if err != nil {
		return mac, false, err
	}
	return i.cfg.Kernel.Neighbour(l.Index, hop)
}

// hop returns the machine on the link to which answers to a datagram go.
func (i *Identifier) hop(l netif.LAN, p datagram.Packet) (netip.Addr, error) {
	source := p.Source.Addr()
	if l.HasMAC(source) {
		return source, nil
	}
	ifindex, next, err := i.cfg.Kernel.NextHop(p.Destination, source)
	if err == nil && ifindex != l.Index {
		err = errNoWay
	}
	return next, err
}

// Seek has the kernel ask for the machine to which answers to a datagram would go.
func (i *Identifier) Seek(iface string, p datagram.Packet) {
	l, served := i.cfg.LANs()[iface]
	if !served {
		return
	}
	hop, err := i.hop(l, p)
	if err == nil {
		err = i.cfg.Resolve(iface, hop)
	}
	if err != nil {
		i.cfg.Log.Debug("cannot ask for a host", "interface", iface, "address", p.Source.Addr(), "err", err)
	}
}

// Account returns whom a search is charged to. It needs no identity: an answer changes
// nothing, and who hears it must have an address of the link.
func (i *Identifier) Account(iface string, p datagram.Packet) datagram.Account {
	l, addr := i.cfg.LANs()[iface], p.Source.Addr()
	a := datagram.Account{Device: datagram.Device{Interface: iface, Sender: p.Sender}, Class: datagram.Stranger}
	mac, known, err := i.cfg.Kernel.Neighbour(l.Index, addr)
	switch known = known && err == nil; {
	case l.MAC == [6]byte{}:
		return datagram.Account{Device: datagram.Device{Interface: iface, Addr: addr}}
	case known && p.Sender.Is(mac):
		a.Class = datagram.Host
	case p.Sender.Seen():
	case known:
		a.Device.Sender, a.Class = datagram.Sender{MAC: mac, Known: len(mac)}, datagram.Host
	default:
		a.Device.Addr = addr
	}
	return a
}

// reportForged logs which machine sent a datagram in the name of which other.
func (i *Identifier) reportForged(l netif.LAN, p datagram.Packet, holder portmap.MAC) {
	leftOut, now := i.forged.allow()
	if !now {
		return
	}
	from := p.Sender
	mac, found, err := i.cfg.Kernel.MACEnding(l.Index, from.MAC[len(from.MAC)-from.Known:])
	if err == nil && found {
		from = datagram.Sender{MAC: mac, Known: len(mac)}
	}
	i.cfg.Log.Warn("forged request ignored: its source address is another machine's",
		"interface", l.Name, "address", p.Source.Addr(), "mac", holder, "sender", from, "left_out", leftOut)
}

// reportUnseen tells of a datagram of which no frame was seen, and has the rules looked at
// that see frames: somebody may have changed them.
func (i *Identifier) reportUnseen(l netif.LAN, p datagram.Packet) {
	if leftOut, now := i.unseen.allow(); now {
		i.cfg.Log.Warn("request ignored: its sender cannot be verified",
			"interface", l.Name, "address", p.Source.Addr(), "left_out", leftOut)
	}
	if _, now := i.looks.allow(); now { // a client must not have us look without end
		i.cfg.Suspect()
	}
}
