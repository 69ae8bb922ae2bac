package dhcp

import (
	"strings"
	"time"
)

// oldest is where times begin to be times: a dnsmasq for machines without a clock
// writes how long a lease lasts instead of when it ends.
const oldest = 10 * 365 * 24 * time.Hour

// dnsmasq reads lines of end, MAC, address, name and client id. Behind a line "duid"
// they are of IPv6, with an IAID in the place of the MAC and a DUID at the end.
func (c *collector) dnsmasq(text string) {
	c.lines(text, func(line string) bool {
		w := strings.Fields(line)
		if w[0] == "duid" {
			return true
		}
		if len(w) < 4 {
			return false
		}
		ends, ok := seconds(w[0])
		addr, isAddr := address(w[2])
		if !ok || !isAddr {
			return false
		}
		if ends.Before(time.Unix(0, 0).Add(oldest)) { // 0: never
			ends = time.Time{}
		}
		l := &Lease{Addr: addr, Name: hostName(w[3]), Expires: ends}
		if addr.Is4() {
			l.MAC = hardware(w[1]) // one that is not of Ethernet has its kind before it
		} else if len(w) > 4 {
			l.MAC = duidMAC(w[4])
		}
		c.put(l)
		return true
	})
}
