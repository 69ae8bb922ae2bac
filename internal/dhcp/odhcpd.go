package dhcp

import (
	"net/netip"
	"strings"
	"time"

	"portcullis/portmap"
)

// maxAddrs is how many addresses of one line are read.
const maxAddrs = 16

// odhcpd reads the lines behind a "#": interface, MAC or DUID, "ipv4" or IAID, name,
// end, number, length, and addresses as prefixes. The others are a hosts file for a
// DNS server, from the same leases.
func (c *collector) odhcpd(text string) {
	c.lines(text, func(line string) bool {
		if !strings.HasPrefix(line, "#") {
			return true
		}
		w := strings.Fields(line)
		if len(w) < 8 || w[0] != "#" {
			return false
		}
		l := &Lease{Name: hostName(w[4])}
		if w[5] != "-1" { // for ever
			var ok bool
			if l.Expires, ok = seconds(w[5]); !ok {
				return false
			}
		}
		four := w[3] == "ipv4"
		if mac := unhex(w[2]); four && len(mac) == len(l.MAC) {
			l.MAC = ofDevice(portmap.MAC(mac))
		} else if !four {
			l.MAC = duidMAC(w[2])
		}
		return c.odhcpdAddrs(l, four, w[8:])
	})
}

// odhcpdAddrs puts a lease for each address; prefixes are for routers.
func (c *collector) odhcpdAddrs(l *Lease, four bool, list []string) bool {
	if l.Expires.Equal(time.Unix(0, 0)) { // over
		return true
	}
	for _, s := range list[:min(len(list), maxAddrs)] {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4() != four {
			return false
		}
		if p.IsSingleIP() && isHost(p.Addr()) {
			l.Addr = p.Addr()
			c.put(l)
		}
	}
	return true
}
