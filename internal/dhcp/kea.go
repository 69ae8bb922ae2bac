package dhcp

import (
	"slices"
	"strings"
	"time"
)

// What Kea writes where a lease never ends.
const keaForever = "4294967295"

// kea reads the CSV of Kea's memfile, of either family, by the names of its columns. It
// is a journal: a line replaces an earlier one, and ends it with a lifetime of 0 or
// another state than 0.
func (c *collector) kea(text string) {
	var columns []string
	c.lines(text, func(line string) bool {
		w := strings.Split(line, ",")
		if w[0] == "address" {
			columns = w[:min(len(w), 64)]
			return true
		}
		value := func(name string) string {
			if i := slices.Index(columns, name); i >= 0 && i < len(w) {
				return w[i]
			}
			return ""
		}
		addr, ok := address(value("address"))
		if !ok {
			return false
		}
		if kind := value("lease_type"); kind != "" && kind != "0" { // a prefix, say
			return true
		}
		if state := value("state"); value("valid_lifetime") == "0" || state != "" && state != "0" {
			c.put(&Lease{Addr: addr})
			return true
		}
		l := &Lease{Addr: addr, MAC: hardware(value("hwaddr")), Name: hostName(value("hostname"))}
		if addr.Is6() && value("hwaddr") == "" {
			l.MAC = duidMAC(value("duid"))
		}
		if l.Expires, ok = seconds(value("expire")); !ok {
			return false
		}
		if value("valid_lifetime") == keaForever {
			l.Expires = time.Time{}
		}
		c.put(l)
		return true
	})
}
