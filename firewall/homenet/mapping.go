package homenet

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"portcullis/portmap"
)

// Mapping is one of an external port, "udp 5000", to an internal endpoint, for an
// hour.
func Mapping(id uint64, port, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	transport, number, _ := strings.Cut(port, " ")
	return mapping(portmap.Mapping{
		ID: id, ExternalPort: netip.MustParseAddrPort(WAN + ":" + number).Port(), Internal: netip.MustParseAddrPort(internal),
	}, transport, change)
}

// Pinhole is one to "[2001:db8:77::10]:6000", for an hour.
func Pinhole(id uint64, transport, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	to := netip.MustParseAddrPort(internal)
	return mapping(portmap.Mapping{ID: id, Kind: portmap.Pinhole6, ExternalPort: to.Port(), Internal: to}, transport, change)
}

func mapping(m portmap.Mapping, transport string, change []func(*portmap.Mapping)) portmap.Mapping {
	m.Transport, m.Created, m.Expires = portmap.UDP, time.Now(), time.Now().Add(time.Hour)
	if transport == "tcp" {
		m.Transport = portmap.TCP
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

// From restricts a mapping to remote hosts: "203.0.113.66", "2001:db8:9::/64", or
// with a source port "2001:db8:9::/64 53".
func From(remotes ...string) func(*portmap.Mapping) {
	return func(m *portmap.Mapping) {
		m.Remotes = nil
		for _, text := range remotes {
			from, port, _ := strings.Cut(text, " ")
			var r portmap.Remote
			if strings.Contains(from, "/") {
				r.Prefix = netip.MustParsePrefix(from)
			} else {
				host := netip.MustParseAddr(bare(from))
				r.Prefix = netip.PrefixFrom(host, host.BitLen())
			}
			if port != "" {
				fmt.Sscan(port, &r.Port)
			}
			m.Remotes = append(m.Remotes, r)
		}
	}
}
