package firewall

import "portcullis/portmap"

// Forwards is what the owner's own rules already forward: external ports that
// cannot be mapped, because the owner's static forward comes first. The zero
// value forwards nothing. Once it is filled it may be read concurrently.
type Forwards struct{ ranges []portmap.PortsInUse }

// Add records that the ports low to high of a transport are forwarded by the
// rule that where describes. An empty range is ignored.
func (f *Forwards) Add(t portmap.Transport, low, high uint16, where string) {
	if low <= high {
		f.ranges = append(f.ranges, portmap.PortsInUse{Transport: t, Ports: portmap.PortRange{First: low, Last: high}, By: where})
	}
}

// All returns the ranges in the order in which they were added. It is not to be changed.
func (f *Forwards) All() []portmap.PortsInUse { return f.ranges }

// Len returns the number of ranges recorded.
func (f *Forwards) Len() int { return len(f.ranges) }

// Taken reports whether a port is forwarded already, and by which rule: the one
// that was added first.
func (f *Forwards) Taken(t portmap.Transport, port uint16) (where string, taken bool) {
	return portmap.InUse(f.ranges, t, port)
}
