package firewall

// Counter is the traffic of one mapping, both directions together, since the
// mapping was made.
type Counter struct {
	Packets uint64
	Bytes   uint64 // of IP packets, headers included
}

// Plus returns the sum.
func (c Counter) Plus(o Counter) Counter {
	return Counter{Packets: c.Packets + o.Packets, Bytes: c.Bytes + o.Bytes}
}
