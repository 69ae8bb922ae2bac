package wall

import (
	"net/netip"
	"strings"

	"portcullis/portmap"
)

// The octets of each message, field by field, in the order of message.go.

func (b *Map) code(w *wire) {
	w.request(&b.Request)
	w.count(&b.N, maxSet)
	w.check(b.N > 0)
}
func (b *Unmap) code(w *wire) { w.selector(&b.Selector) }
func (b *Own) code(w *wire) {
	w.clientID(&b.Client)
	w.count(&b.From, 1<<16-1)
	w.count(&b.N, portmap.MaxPage)
}
func (b *OwnPorts) code(w *wire) {
	b.Own.code(w)
	w.transport(&b.Transport)
	w.ports(&b.Ports)
}
func (b *External) code(w *wire) {
	w.transport(&b.Transport)
	w.u16(&b.Port)
	w.remotes(&b.Remotes, maxRemotes)
}
func (b *Internal) code(w *wire) {
	w.clientID(&b.Client)
	b.External.code(w)
}
func (b *Pinhole) code(w *wire) { w.u16(&b.ID) }
func (b *Packets) code(w *wire) {
	w.u64(&b.ID)
	w.check(b.ID <= portmap.MaxID)
}
func (b *OutboundTimeout) code(w *wire) { w.transport(&b.Transport) }
func (b *Heard) code(w *wire)           { w.mac((*[6]byte)(&b.MAC)) }
func (b *NextBootID) code(w *wire)      { w.u32(&b.Last) }
func (*Suspect) code(*wire)             {}
func (b *KeepEpochs) code(w *wire) {
	w.moment(&b.Four)
	w.moment(&b.Six)
}
func (b *Open) code(w *wire) {
	w.u8((*uint8)(&b.Kind))
	w.check(b.Kind <= HTTP)
	w.name(&b.LAN)
	w.flag(&b.Six)
	addr, port := b.Addr.Addr(), b.Addr.Port()
	w.addr(&addr)
	w.u16(&port)
	b.Addr = netip.AddrPortFrom(addr, port)
	w.check(addr.IsValid() == (b.Kind == HTTP) && (addr.IsValid() || port == 0) && (b.Kind != HTTP || !b.Six))
}
func (b *Resolve) code(w *wire) {
	w.name(&b.LAN)
	w.host(&b.Addr)
}
func (b *Connect) code(w *wire) {
	w.name(&b.LAN)
	w.host(&b.Local)
	w.addrPort(&b.To)
}
func (*Forget) code(*wire) {}
func (*Done) code(*wire)   {}
func (b *Mappings) code(w *wire) {
	list(w, &b.Mappings, maxSet, w.mapping)
}
func (b *Page) code(w *wire) {
	list(w, &b.Mappings, portmap.MaxPage, w.mapping)
	w.u32(&b.Count)
	w.u64(&b.Revision)
}
func (b *Value) code(w *wire) { w.u64(&b.Value) }
func (b *Refused) code(w *wire) {
	w.u8((*uint8)(&b.Reason))
	w.check(int(b.Reason) <= len(portmap.Reasons()))
	w.text(&b.Detail, maxDetail)
	w.span(&b.Left, 0)
	w.flag(&b.External)
	w.flag(&b.Gone)
	w.check(!b.Gone || b.Reason == portmap.NoReason)
}
func (b *Socket) code(w *wire) {
	w.u8((*uint8)(&b.Seen))
	w.check(b.Seen <= ByPacketSocket)
}
func (b *Event) code(w *wire) {
	w.u8((*uint8)(&b.Type))
	w.check(b.Type >= portmap.Granted && b.Type <= portmap.Resync)
	w.kind(&b.Kind)
	w.name(&b.Client.Interface)
	w.addr(&b.Client.Addr)
	w.mac((*[6]byte)(&b.Client.MAC))
}
func (b *Settings) code(w *wire) {
	w.flag(&b.UPnP)
	w.flag(&b.Events)
	p := &b.Product
	for _, text := range []*string{
		&b.UUID, &b.Path, &b.FriendlyName, &p.Manufacturer, &p.ManufacturerURL, &p.ModelName, &p.ModelNumber, &p.ModelDescription,
		&p.ModelURL, &p.SerialNumber, &p.PresentationURL,
	} {
		w.text(text, maxSetting)
	}
	w.u16(&b.HTTPPort)
	w.span(&b.MaxAge, 0)
	w.u64(&b.RateUp)
	w.u64(&b.RateDown)
	w.flag(&b.Version1)
	list(w, &b.Version1Clients, maxPlain, w.prefix)
	w.flag(&b.NATPMP)
	w.flag(&b.PCP)
	w.u32(&b.RequestsPerSecond)
	w.flag(&b.SameDevice)
	w.i8(&b.LogLevel)
	w.u32(&b.UID)
	w.u32(&b.GID)
	w.flag(&b.Shared)
}
func (b *Serve) code(w *wire) {
	w.moment(&b.Four)
	w.moment(&b.Six)
}
func (b *Network) code(w *wire) {
	w.u32(&b.Turn)
	w.uplink(&b.WAN)
	w.flag(&b.Six)
	list(w, &b.LANs, maxLANs, w.lan)
}
func (*Stop) code(*wire) {}
func (*Ping) code(*wire) {}
func (*Pong) code(*wire) {}
func (b *Confined) code(w *wire) {
	list(w, &b.Missing, maxMissing, func(line *string) {
		w.text(line, maxDetail)
		w.check(strings.IndexFunc(*line, unprintable) < 0) // an owner's terminal shows it
	})
}
func (b *Served) code(w *wire) {
	w.u32(&b.Turn)
	w.text(&b.Problem, maxDetail)
}
func (b *Failed) code(w *wire) { w.text(&b.Problem, maxDetail) }
func (b *Record) code(w *wire) {
	w.i8(&b.Level)
	w.text(&b.Message, maxLine)
	list(w, &b.Attrs, maxAttrs, func(a *Attr) {
		w.text(&a.Key, maxKey)
		w.u8((*uint8)(&a.Kind))
		w.check(a.Kind <= DurationAttr)
		if a.Kind == TextAttr {
			w.text(&a.Text, maxDetail)
		} else {
			w.u64(&a.Number)
			w.check(a.Kind != BoolAttr || a.Number <= 1)
		}
	})
}
