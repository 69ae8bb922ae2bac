package dhcp

import (
	"strings"
	"time"

	"portcullis/portmap"
)

// isc reads dhcpd.leases: blocks of statements, one in a line, of which those of
// "lease ADDRESS" count. It is a journal: a block replaces an earlier one of the same
// address. What has no end is given up where the next lease begins. No text between
// quotes can begin or end a block: the server writes a line's end as \012, so that a
// line ends as the server wants, and a client's name is always followed by ";".
func (c *collector) isc(text string) {
	var lease *iscLease // of the block that is open
	depth := 0
	c.lines(text, func(line string) bool {
		if line[0] == '#' {
			return true
		}
		w := strings.Fields(line)
		whole := true
		begins := strings.HasSuffix(line, "{")
		if begins && depth > 0 && w[0] == "lease" {
			depth, whole = 0, false
		}
		if line[0] == '}' {
			if depth--; depth < 0 {
				depth = 0
				return false
			}
			if depth == 0 && lease != nil {
				whole = c.iscFinish(lease)
				lease = nil
			}
		}
		switch {
		case begins:
			if depth++; depth == 1 {
				lease = iscBegin(w)
			}
		case depth == 1 && lease != nil:
			lease.statement(w)
		}
		return whole
	})
	if depth > 0 {
		c.damaged++
	}
}

// iscLease is a block while it is read.
type iscLease struct {
	Lease
	ended bool
	bad   bool
}

func iscBegin(w []string) *iscLease {
	if w[0] != "lease" || len(w) != 3 {
		return nil
	}
	a, ok := address(w[1])
	return &iscLease{Lease: Lease{Addr: a}, bad: !ok}
}

// statement takes in a line of words. A name with a backslash in it, or a blank, is
// none that can be used.
func (l *iscLease) statement(w []string) {
	last := strings.TrimSuffix(w[len(w)-1], ";")
	ok := true
	switch {
	case w[0] == "deleted;" || w[0] == "abandoned;":
		l.ended = true
	case len(w) == 2 && w[0] == "client-hostname":
		l.Name = hostName(strings.Trim(last, `"`))
	case len(w) == 3 && w[0] == "hardware" && w[1] == "ethernet":
		mac, err := portmap.ParseMAC(last)
		l.MAC, ok = ofDevice(mac), err == nil
	case len(w) == 3 && w[0] == "binding": // old servers do not write it
		l.ended = last != "active"
	case w[0] == "ends":
		l.Expires, ok = iscEnd(w)
	}
	l.bad = l.bad || !ok
}

// iscEnd reads "ends never;", "ends epoch SECONDS; # a comment", or a time in UTC
// behind the day of the week.
func iscEnd(w []string) (time.Time, bool) {
	switch {
	case len(w) >= 3 && w[1] == "epoch":
		return seconds(strings.TrimSuffix(w[2], ";"))
	case len(w) >= 4:
		at, err := time.Parse("2006/01/02 15:04:05", w[2]+" "+strings.TrimSuffix(w[3], ";"))
		return at, err == nil && at.Unix() >= 0
	}
	return time.Time{}, len(w) == 2 && w[1] == "never;"
}

// iscFinish takes over a block, unless it is damaged.
func (c *collector) iscFinish(l *iscLease) bool {
	if l.ended {
		l.MAC = portmap.MAC{}
	}
	if !l.bad {
		c.put(&l.Lease)
	}
	return !l.bad
}
