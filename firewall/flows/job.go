package flows

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Flow is an entry of the kernel's connection tracking as far as we care.
type Flow struct {
	Transport   portmap.Transport
	Src, Dst    netip.AddrPort // of the first packet as it came
	AnswersFrom netip.AddrPort // the reply's source: where Dst was translated to
	AnswersTo   netip.AddrPort // the reply's destination: what Src was translated to
}

// job is which flows to look at.
type job struct {
	ports map[port]bool           // external ports of which a mapping changed
	ended map[led]bool            // who those ports led to
	taken map[port]bool           // external ports that nobody but their client may leave from
	lost  map[netip.Addr]bool     // WAN addresses we no longer have
	force map[port][]ending       // mappings whose flows end whatever the table says
	pins  map[endpoint][]pinEnded // pinholes, of both sorts
	tries int                     // passes that failed
}

// port is an external one.
type port struct {
	transport portmap.Transport
	number    uint16
}

// led is an external port and where it used to lead.
type led struct {
	port
	internal netip.AddrPort
}

// endpoint is where a pinhole leads.
type endpoint struct {
	transport portmap.Transport
	internal  netip.AddrPort
}

// ending is a mapping that ended, or that lets in less.
type ending struct {
	internal netip.AddrPort
	remotes  []portmap.Remote
}

type pinEnded struct {
	ending
	force bool // whatever the table says
}

// admits reports whether the mapping was for a packet from src.
func (e ending) admits(src netip.AddrPort) bool {
	return len(e.remotes) == 0 || slices.ContainsFunc(e.remotes, func(r portmap.Remote) bool {
		return r.Prefix.Contains(src.Addr()) && (r.Port == 0 || r.Port == src.Port())
	})
}

func newJob() *job {
	return &job{
		ports: make(map[port]bool), ended: make(map[led]bool), taken: make(map[port]bool), lost: make(map[netip.Addr]bool),
		force: make(map[port][]ending), pins: make(map[endpoint][]pinEnded),
	}
}

// four and six say which family's flows the job is about.
func (j *job) four() bool { return len(j.ports)+len(j.taken)+len(j.lost)+len(j.force) > 0 }

func (j *job) six() bool { return len(j.pins) > 0 }

func (j *job) empty() bool { return !j.four() && !j.six() }

// change adds what a committed change means for flows.
func (j *job) change(c *firewall.Delta) {
	for i := range c.Gone {
		m := &c.Gone[i]
		if m.Kind == portmap.Pinhole6 {
			j.endPin(m, false)
			continue
		}
		p := port{m.Transport, m.ExternalPort}
		j.ports[p] = true
		j.ended[led{p, m.Internal}] = true
	}
	for _, e := range c.New {
		// A pinhole translates nothing. A TCP connection that was refused before is
		// gone from conntrack by itself; only a UDP flow can have lived on beside
		// the mapping.
		if e.Kind == firewall.Pin {
			continue
		}
		p := port{e.Transport, e.External}
		j.taken[p] = true
		if e.Transport == portmap.UDP || !e.Source.Anyone() {
			j.ports[p] = true
		}
	}
}

// lose adds the WAN addresses that a new set of facts no longer has. The kernel
// ends masqueraded flows itself when their address goes, but not ours.
func (j *job) lose(before, after firewall.Facts) {
	have := after.WANAddrs()
	for _, a := range before.WANAddrs() {
		if !slices.Contains(have, a) {
			j.lost[a] = true
		}
	}
}

// endAll adds all flows of mappings, whatever the table says.
func (j *job) endAll(ms []portmap.Mapping) {
	for i := range ms {
		m := &ms[i]
		if m.Kind == portmap.Pinhole6 {
			j.endPin(m, true)
			continue
		}
		p := port{m.Transport, m.ExternalPort}
		j.force[p] = append(j.force[p], ending{m.Internal, m.Remotes})
	}
}

func (j *job) endPin(m *portmap.Mapping, force bool) {
	at := endpoint{m.Transport, m.Internal}
	j.pins[at] = append(j.pins[at], pinEnded{ending{m.Internal, m.Remotes}, force})
}

// fewQueries is how many listings are cheaper than one of everything: the kernel
// looks through its whole table for each of them.
const fewQueries = 4

// queries returns what to list of one family.
func (j *job) queries(family byte) []query {
	var list []query
	if family == unix.AF_INET6 {
		for at := range j.pins {
			list = append(list, query{family: family, transport: at.transport, port: at.internal.Port()})
		}
	} else {
		inbound := maps.Clone(j.ports)
		for p := range j.force {
			inbound[p] = true
		}
		for p := range inbound {
			list = append(list, query{family: family, transport: p.transport, port: p.number})
		}
		for p := range j.taken {
			list = append(list, query{family: family, transport: p.transport, answersTo: p.number})
		}
	}
	if family == unix.AF_INET && len(j.lost) > 0 || len(list) > fewQueries {
		return []query{{family: family}}
	}
	return list
}

// join adds another job.
func (j *job) join(o *job) {
	maps.Copy(j.ports, o.ports)
	maps.Copy(j.ended, o.ended)
	maps.Copy(j.taken, o.taken)
	maps.Copy(j.lost, o.lost)
	for p, list := range o.force {
		j.force[p] = append(j.force[p], list...)
	}
	for at, list := range o.pins {
		j.pins[at] = append(j.pins[at], list...)
	}
	j.tries = max(j.tries, o.tries)
}
