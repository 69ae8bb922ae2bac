package fwtest

import (
	"net/netip"
	"time"

	"portcullis/portmap"
)

// pin makes pinhole id: udp, port 5000 of a host of its own, for an hour.
func (r *run) pin(id uint64, change ...func(*portmap.Mapping)) portmap.Mapping {
	m := r.mapping(id)
	host := netip.MustParseAddr("2001:db8:77::").As16()
	host[14], host[15] = byte(id>>8), byte(id)
	m.Kind, m.Internal = portmap.Pinhole6, netip.AddrPortFrom(netip.AddrFrom16(host), 5000)
	for _, c := range change {
		c(&m)
	}
	m.ExternalPort = m.Internal.Port()
	return m
}

// either makes a mapping of one family or the other.
func (r *run) either(id uint64, change ...func(*portmap.Mapping)) portmap.Mapping {
	if id%2 == 0 {
		return r.pin(id, change...)
	}
	return r.mapping(id, change...)
}

func tcp(m *portmap.Mapping) { m.Transport = portmap.TCP }

// remotes6 are restrictions that come to sources of every class.
var remotes6 = []string{
	"2001:db8:9::/64", "2001:db8::/33 53", "2001:db8:8::1/128", "2001:db8:8::2/128 53", "::/0 123", "2001:db8:f000::/36",
}

var pinholes = map[string]func(*run){
	"pinhole, renewed and deleted": func(r *run) {
		r.apply(list(r.pin(1)), nil)
		r.apply(list(r.pin(1)), nil)
		r.apply(list(r.pin(1, r.until(2*time.Hour))), list(r.pin(1)))
		r.apply(list(r.pin(1, forever)), nil)
		r.apply(list(r.pin(1, r.until(-30*time.Second))), nil)
		r.apply(nil, list(r.pin(1)))
		r.apply(nil, list(r.pin(1)))
	},
	"both families in one change": func(r *run) {
		r.apply(list(r.mapping(1), r.pin(2)), nil)
		r.apply(list(r.pin(3), r.mapping(4)), list(r.mapping(1), r.pin(2)))
		r.apply(list(r.mapping(3), r.pin(4)), nil)
		r.replaceUnder(r.ctx(), list(r.pin(4), r.mapping(5), r.pin(6)))
		r.replaceUnder(r.ctx(), list(r.mapping(5)))
	},
	"J7/pinholes of one host": func(r *run) {
		end := to("[2001:db8:77::1]:5000")
		r.apply(list(r.pin(1), r.pin(2, end, tcp), r.pin(3, to("[2001:db8:77::1]:5001"))), nil)
		r.apply(list(r.pin(4, end, from("2001:db8:9::7/128")), r.pin(5, end, from(remotes6...))), nil)
		r.apply(nil, list(r.pin(1), r.pin(4)))
		r.apply(list(r.pin(1)), list(r.pin(5)))
	},
	"B10/pinholes with restrictions": func(r *run) {
		many := r.pin(1, from(remotes6...))
		r.apply(list(r.pin(1)), nil)
		r.apply(list(r.pin(1, from("2001:db8:9::7/128"))), list(r.pin(1)))
		r.apply(list(many), nil)
		many.Expires = many.Expires.Add(time.Hour)
		r.apply(list(many), nil)
		r.apply(list(r.pin(1, from("2001:db8:9::/64 53"))), list(many))
		r.apply(list(many, r.pin(2, tcp, from(remotes6...))), nil)
		r.replaceUnder(r.ctx(), list(many, r.pin(3)))
		r.apply(nil, list(many))
	},
	"B10/what a pinhole cannot have": func(r *run) {
		end := to("[2001:db8:77::1]:5000")
		r.apply(list(r.pin(1), r.pin(3, end, from("2001:db8:9::/64 53"))), nil)
		r.refuses(r.pin(2, from("198.51.100.7/32")), portmap.BadRemote)
		r.refuses(r.pin(2, from("2001:db8:9::/64", "198.51.100.0/24")), portmap.BadRemote)
		r.refuses(r.pin(2, to("192.168.0.9:80")), portmap.NotAHost)
		r.refuses(r.pin(2, to("[fe80::1]:80")), portmap.NotAHost)
		r.refuses(r.pin(2, end), portmap.PortTaken)
		r.refuses(r.pin(2, end, from("2001:db8:9::7/128 53")), portmap.PortTaken)
		r.refuses(r.pin(2, end, from("2001:db8::/32")), portmap.PortTaken)
		r.apply(list(r.pin(2, end, from("2001:db8:9::7/128"))), nil)
		r.apply(list(r.pin(4, end, from("2001:db8::/32"))), list(r.pin(3)))
	},
	"B11/a disabled pinhole": func(r *run) {
		r.apply(list(r.pin(1, disabled)), nil)
		r.apply(list(r.pin(1)), nil)
		r.apply(list(r.pin(1, disabled)), nil)
	},
	"K3/pinholes are flushed": func(r *run) {
		r.apply(list(r.mapping(1), r.pin(2), r.pin(3, from(remotes6...))), nil)
		r.Wipe(r.T)
		r.apply(nil, list(r.mapping(1)))
		r.Wipe(r.T)
		r.apply(list(r.pin(2, r.until(2*time.Hour))), nil)
	},
	"K3/a pinhole is taken": func(r *run) {
		r.apply(list(r.mapping(1), r.pin(2), r.pin(3, from(remotes6...))), nil)
		r.steal(r.pin(2))
		r.apply(list(r.pin(2, r.until(2*time.Hour))), nil)
		r.steal(r.pin(3))
		r.apply(nil, list(r.pin(3)))
	},
	"the outcome of a pinhole is lost": func(r *run) {
		r.applyUnder(r.Blind(r.ctx()), list(r.pin(1), r.mapping(2)), nil)
		r.applyUnder(r.Blind(r.ctx()), list(r.pin(3, from(remotes6...))), list(r.pin(1)))
		r.applyUnder(r.Blind(r.ctx()), list(r.pin(3, from(remotes6...), r.until(2*time.Hour))), nil)
		r.applyUnder(r.Blind(r.ctx()), nil, list(r.pin(3)))
		r.replaceUnder(r.Blind(r.ctx()), list(r.pin(4), r.mapping(5)))
	},
}
