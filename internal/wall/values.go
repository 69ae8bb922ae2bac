package wall

import (
	"net/netip"
	"time"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Mapping is what crosses of a portmap.Mapping. Who made it by which secret, by which
// rule, and what its host is called stay behind the wall.
type Mapping struct {
	ID           uint64
	Client       portmap.ClientID
	Kind         portmap.Kind
	Transport    portmap.Transport
	Internal     netip.AddrPort
	ExternalPort uint16
	Number       uint16
	Remotes      []portmap.Remote
	Disabled     bool
	Endless      bool
	Description  string
	Claims       portmap.Vias
	// Left is until it ends, and until the lease of UPnP, NAT-PMP and PCP does: -1 is
	// never.
	Left, UPnP, NATPMP, PCP time.Duration
}

// showing returns what crosses of a mapping now.
func showing(m *portmap.Mapping, now time.Time) Mapping {
	return Mapping{
		ID: m.ID, Client: m.Client.ID(), Kind: m.Kind, Transport: m.Transport, Internal: m.Internal,
		ExternalPort: m.ExternalPort, Number: m.Number, Remotes: m.Remotes, Disabled: m.Disabled, Endless: m.Endless,
		Description: m.Description, Claims: m.Claims, Left: m.Left(now),
		UPnP: m.LeaseLeft(portmap.ViaUPnP, now), NATPMP: m.LeaseLeft(portmap.ViaNATPMP, now), PCP: m.LeaseLeft(portmap.ViaPCP, now),
	}
}

// mapping returns it as the front uses it, at the time at which it came.
func (m *Mapping) mapping(now time.Time) portmap.Mapping {
	ends := func(left time.Duration) time.Time {
		if left < 0 {
			return time.Time{}
		}
		return now.Add(left)
	}
	p := portmap.Mapping{
		ID: m.ID, Client: portmap.Client{Interface: m.Client.Interface, Addr: m.Client.Addr, MAC: m.Client.MAC},
		Kind: m.Kind, Transport: m.Transport, Internal: m.Internal, ExternalPort: m.ExternalPort, Number: m.Number,
		Remotes: m.Remotes, Disabled: m.Disabled, Endless: m.Endless, Description: m.Description, Claims: m.Claims,
		Expires: ends(m.Left),
	}
	for via, left := range map[portmap.Via]time.Duration{portmap.ViaUPnP: m.UPnP, portmap.ViaNATPMP: m.NATPMP, portmap.ViaPCP: m.PCP} {
		if left != m.Left {
			p.Leases.Set(via, portmap.Lease{Ends: ends(left)})
		}
	}
	return p
}

func (w *wire) mapping(m *Mapping) {
	w.u64(&m.ID)
	w.check(m.ID <= portmap.MaxID)
	w.clientID(&m.Client)
	w.kind(&m.Kind)
	w.transport(&m.Transport)
	w.addrPort(&m.Internal)
	w.u16(&m.ExternalPort)
	w.u16(&m.Number)
	w.remotes(&m.Remotes, portmap.MaxRemotes)
	w.flag(&m.Disabled)
	w.flag(&m.Endless)
	w.text(&m.Description, portmap.MaxDescription)
	w.u8((*uint8)(&m.Claims))
	for _, left := range []*time.Duration{&m.Left, &m.UPnP, &m.NATPMP, &m.PCP} {
		w.span(left, -1)
	}
}

func (w *wire) clientID(id *portmap.ClientID) {
	w.name(&id.Interface)
	w.host(&id.Addr)
	w.mac((*[6]byte)(&id.MAC))
}

// client is one that asks. By its name rules decide, so that the front does not say it;
// nor is the owner among those who ask by it.
func (w *wire) client(c *portmap.Client) {
	id := c.ID()
	w.clientID(&id)
	c.Interface, c.Addr, c.MAC = id.Interface, id.Addr, id.MAC
	w.u8((*uint8)(&c.Via))
	w.check(c.Via == portmap.ViaUPnP || c.Via == portmap.ViaNATPMP || c.Via == portmap.ViaPCP)
	w.flag(&c.Unheard)
	w.check(c.Name == "")
}

func (w *wire) kind(k *portmap.Kind) {
	w.u8((*uint8)(k))
	w.check(*k == portmap.NAT4 || *k == portmap.Pinhole6)
}

// transport is any number: that it is neither TCP nor UDP the policy says.
func (w *wire) transport(t *portmap.Transport) { w.u8((*uint8)(t)) }

// remotes may be more in a request than a mapping can have, which the policy refuses.
func (w *wire) remotes(all *[]portmap.Remote, most int) {
	list(w, all, most, func(r *portmap.Remote) {
		w.prefix(&r.Prefix)
		w.u16(&r.Port)
	})
}

func (w *wire) ports(r *portmap.PortRange) {
	w.u16(&r.First)
	w.u16(&r.Last)
}

func (w *wire) nonce(n **portmap.Nonce) {
	there := *n != nil
	w.flag(&there)
	if !there || w.err != nil {
		return
	}
	if w.reading {
		*n = new(portmap.Nonce)
	}
	b := w.take(len(*n))
	if w.reading {
		copy((*n)[:], b)
	} else {
		copy(b, (*n)[:])
	}
}

func (w *wire) request(r *portmap.Request) {
	w.client(&r.Client)
	w.kind(&r.Kind)
	w.transport(&r.Transport)
	w.addrPort(&r.Internal)
	w.u16(&r.ExternalPort)
	w.remotes(&r.Remotes, maxRemotes)
	w.span(&r.Lifetime, 0)
	w.text(&r.Description, portmap.MaxDescription)
	w.u8((*uint8)(&r.Named))
	w.check(r.Named <= portmap.ByInternal)
	w.u8((*uint8)(&r.RemotesAre))
	w.check(r.RemotesAre <= portmap.RemotesReplace)
	for _, f := range []*bool{&r.Exact, &r.Disabled, &r.ZeroIsEndless, &r.Floored, &r.KeepDescription, &r.Parity} {
		w.flag(f)
	}
	w.nonce(&r.Nonce)
}

// selector has no Anybody: what is another's only the owner removes.
func (w *wire) selector(s *portmap.Selector) {
	w.client(&s.Client)
	w.check(!s.Anybody)
	w.u64(&s.ID)
	w.transport(&s.Transport)
	w.u16(&s.FirstPort)
	w.u16(&s.LastPort)
	w.u16(&s.Internal)
	w.u16(&s.LastInternal)
	w.remotes(&s.Remotes, maxRemotes)
	w.flag(&s.ExactRemotes)
	w.u8((*uint8)(&s.Only))
	w.check(s.Only <= portmap.ViaPCP)
	w.nonce(&s.Nonce)
}

// lan is one to serve.
func (w *wire) lan(l *netif.LAN) {
	w.name(&l.Name)
	w.check(l.Name != "")
	index := uint32(l.Index) // #nosec G115 -- the kernel's are 31 bits
	w.u32(&index)
	l.Index = int(index)
	w.check(index > 0 && index < 1<<31)
	w.mac(&l.MAC)
	w.addr(&l.Addr)
	list(w, &l.Addrs, maxAddrs, w.host)
	list(w, &l.Prefixes, maxAddrs, w.prefix)
	list(w, &l.Direct, maxAddrs, w.prefix)
}

// uplink is the WAN as clients are told of it.
func (w *wire) uplink(wan *portmap.WAN) {
	w.name(&wan.Name)
	w.flag(&wan.Up)
	w.addr(&wan.External)
	w.flag(&wan.Private)
}
