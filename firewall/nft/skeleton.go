package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Table is the name of our table; its family is inet.
const Table = "portcullis"

// Priorities, relative to where the owner's own chains usually stand.
const (
	// After the owner's prerouting: the first chain that translates a packet
	// decides, and the owner's static forward must win over what a client asked
	// for. A port with a static forward is refused anyway (foreign.go); this
	// holds when the owner adds one later.
	priorityDNAT = nftables.ChainPriority(-100 + 10)
	// Before the owner's masquerade, which would pick another source port.
	prioritySNAT = nftables.ChainPriority(100 - 10)
	// After every translation of the source.
	priorityOwn = nftables.ChainPriority(100 + 10)
	// After the owner's forward filter, so that only what really passes is
	// counted. Accepting here never undoes a drop there (accept.go).
	priorityForward = nftables.ChainPriority(0 + 10)
	// After every translation and marking of what the machine itself sends.
	priorityLeash = nftables.ChainPriority(0 + 10)
)

// skeleton is the table's fixed part: sets to be filled, chains, and rules that
// look things up. Set and chain names have an underscore or are no word of nft,
// whose parser refuses a name that is a keyword.
type skeleton struct {
	table *nftables.Table

	// Facts of the gateway, written by Configure.
	wanIfaces, lanIfaces *nftables.Set
	wan6Ifaces           *nftables.Set
	wanAddrs             *nftables.Set
	wanSource            *nftables.Set // WAN interface -> the address its kept flows leave from
	lanPrefixes          *nftables.Set
	inside               *nftables.Set // sources that leave under the WAN's address
	frontUser            *nftables.Set // who sends to the LANs alone (leash.go)

	// Mappings. A hole is one element in a map and one in the set of the flows
	// it lets through (sources.go), a pin one element (pins.go).
	mapped, mappedFrom, mappedFiltered *nftables.Set

	flows flowSets
	kept  *nftables.Set // internal endpoint -> its external port

	mappedPorts *nftables.Set // what nobody but its client leaves from (ownports.go)

	pins pinSets // IPv6 pinholes (pins.go)

	ended, ended6 *nftables.Set // flows of mappings that ended (package flows)

	marks *marks // nil: packets are not marked (marks.go)

	ids uint32
}

// Concatenated keys.
var (
	portKey     = []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	endpointKey = []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService}
	flowKey     = []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService}
	hostPort    = []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetService}
	// The keys of filtered sources. nft can write five parts and no more, so
	// that the flows have a set for each transport.
	filterKey       = []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeInetService}
	filteredFlowKey = []nftables.SetDatatype{
		nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService,
	}
	connection = append(hostPort, hostPort...) // the mapped host's end, then the other
)

// newSkeleton describes the table; size bounds each set of mappings.
func newSkeleton(size uint32) *skeleton {
	s := &skeleton{table: &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}}
	s.wanIfaces = s.fact("wan_ifaces", nftables.TypeIFName)
	s.wan6Ifaces = s.fact("wan6_ifaces", nftables.TypeIFName)
	s.lanIfaces = s.fact("lan_ifaces", nftables.TypeIFName)
	s.wanAddrs = s.fact("wan_addrs", nftables.TypeIPAddr)
	s.wanSource = s.fact("wan_source", nftables.TypeIFName)
	s.wanSource.IsMap, s.wanSource.DataType = true, nftables.TypeIPAddr
	s.lanPrefixes = s.fact("lan_prefixes", nftables.TypeIPAddr)
	s.lanPrefixes.Interval = true
	s.inside = s.fact("inside", nftables.TypeIPAddr)
	s.inside.Interval = true
	s.frontUser = s.fact("front_user", nftables.TypeUID)

	s.mapped = s.leases("mapped", size, portKey, hostPort)
	s.mappedFrom = s.leases("mapped_from", size, fromKey(portKey), hostPort)
	s.mappedFiltered = s.ranges("mapped_filtered", size, filterKey, hostPort)
	s.flows = s.flowSets(ownFlowNames, size)
	s.pins = s.pinSets(ownPinNames, size)
	for _, set := range append(s.flows.all(), s.pins.all()...) {
		set.Counter = true
	}
	s.kept = s.leases("kept_ports", size, endpointKey, nil)
	s.kept.IsMap, s.kept.DataType = true, nftables.TypeInetService
	s.mappedPorts = s.leases("mapped_ports", size, portKey, nil)
	s.ended = s.leases("ended_flows", size, connection, nil)
	s.ended6 = s.leases("ended_flows6", size, connection6, nil)
	return s
}

// fromKey puts the remote address in front of a key.
func fromKey(key []nftables.SetDatatype) []nftables.SetDatatype {
	return append([]nftables.SetDatatype{nftables.TypeIPAddr}, key...)
}

// nextID numbers the sets of one batch. The library numbers them from a global
// variable without a lock, so we never let it.
func (s *skeleton) nextID() uint32 {
	s.ids++
	return s.ids
}

func (s *skeleton) fact(name string, key nftables.SetDatatype) *nftables.Set {
	set := &nftables.Set{Table: s.table, ID: s.nextID(), Name: name, KeyType: key, KeyByteOrder: binaryutil.BigEndian}
	if key == nftables.TypeIFName || key == nftables.TypeUID {
		set.KeyByteOrder = binaryutil.NativeEndian
	}
	return set
}

// leases is a set, or with data a map, whose elements end by themselves (abuse
// case C7).
func (s *skeleton) leases(name string, size uint32, key, data []nftables.SetDatatype) *nftables.Set {
	set := &nftables.Set{
		Table: s.table, ID: s.nextID(), Name: name, Size: size, HasTimeout: true,
		KeyType: nftables.MustConcatSetType(key...), KeyByteOrder: binaryutil.BigEndian,
	}
	if data != nil {
		set.IsMap, set.DataType = true, nftables.MustConcatSetType(data...)
	}
	return set
}

// ranges is a set or map of leases whose keys are ranges in each of their parts.
// Such keys alone are said to be concatenations, as the nft program has it: the
// kernel takes two declarations of a set for the same only when they say the same
// (etc/nftables.d).
func (s *skeleton) ranges(name string, size uint32, key, data []nftables.SetDatatype) *nftables.Set {
	set := s.leases(name, min(size, filteredSize), key, data)
	set.Interval, set.Concatenation = true, true
	return set
}

// sets returns every set, in the order in which they are listed.
func (s *skeleton) sets() []*nftables.Set {
	all := append(s.factSets(), s.mapped, s.mappedFrom, s.mappedFiltered)
	all = append(append(all, s.flows.all()...), s.kept, s.mappedPorts)
	return append(append(append(all, s.pins.all()...), s.ended, s.ended6), s.marks.sets()...)
}

// factSets returns the sets that describe the gateway.
func (s *skeleton) factSets() []*nftables.Set {
	return []*nftables.Set{
		s.wanIfaces, s.wan6Ifaces, s.lanIfaces, s.wanAddrs, s.wanSource, s.lanPrefixes, s.inside, s.frontUser,
	}
}

// setComments are for who reads the table.
var setComments = map[string]string{
	"mapped":                    "what is open: the external port, and whose it is",
	"mapped_from":               "the same for one remote host each",
	"mapped_filtered":           "the same for remote networks or ports",
	"mapped_flows":              "who may pass, and what has passed",
	"mapped_flows_from":         "the same for one remote host each",
	"mapped_flows_filtered_tcp": "the same for remote networks or ports",
	"mapped_flows_filtered_udp": "the same for remote networks or ports",
	"kept_ports":                "the external ports that mapped hosts keep for what they send",
	"mapped_ports":              "the external ports that nobody else sends from",
	"pinholes":                  "what is open by IPv6",
	"pinholes_from":             "the same for one remote host each",
	"pinholes_filtered":         "the same for remote networks or ports",
	"ended_flows":               "just closed: a host that carries on is told so, for a minute",
	"ended_flows6":              "the same by IPv6",
}

// createTable queues the empty table with its sets. A table that is there
// already is replaced in the same transaction; adding it first lets the deletion
// succeed when there is none.
func (s *skeleton) createTable(q *nftables.Conn) error {
	q.AddTable(s.table)
	q.DelTable(s.table)
	q.AddTable(s.table)
	for _, set := range s.sets() {
		set.Comment = setComments[set.Name]
		if err := q.AddSet(set, nil); err != nil {
			return err
		}
	}
	return nil
}

// createRules queues the chains and rules. From the moment they are committed
// the sets take effect.
func (s *skeleton) createRules(q *nftables.Conn) error {
	b := &chainBuilder{queue: q, table: s.table, nextID: s.nextID}
	s.dnatRules(b)
	s.snatRules(b)
	s.ownRules(b)
	s.forwardRules(b)
	s.leashRules(b)
	s.markRules(b)
	return b.err
}

// chainBuilder queues chains and rules and keeps the first error.
type chainBuilder struct {
	queue  *nftables.Conn
	table  *nftables.Table
	nextID func() uint32
	err    error
}

func (b *chainBuilder) base(name string, typ nftables.ChainType, hook *nftables.ChainHook, at nftables.ChainPriority) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return b.queue.AddChain(&nftables.Chain{
		Table: b.table, Name: name, Type: typ, Hooknum: hook, Priority: &at, Policy: &policy,
	})
}

func (b *chainBuilder) plain(name string) *nftables.Chain {
	return b.queue.AddChain(&nftables.Chain{Table: b.table, Name: name})
}

func (b *chainBuilder) rule(c *nftables.Chain, why string, parts ...match) {
	b.queue.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: rule(parts...), UserData: comment(why)})
}

// tcpOrUDP makes the anonymous set that the next rule looks up.
func (b *chainBuilder) tcpOrUDP() match {
	set := &nftables.Set{
		Table: b.table, ID: b.nextID(), Name: "__set%d", Anonymous: true, Constant: true, KeyType: nftables.TypeInetProto,
	}
	err := b.queue.AddSet(set, []nftables.SetElement{{Key: []byte{unix.IPPROTO_TCP}}, {Key: []byte{unix.IPPROTO_UDP}}})
	if err != nil && b.err == nil {
		b.err = err
	}
	return tcpOrUDP(set)
}

// dnatRules translates what comes to an address of ours on the WAN, and what a
// LAN host sends there (hairpin). Traffic between LAN and Internet that merely
// bears a mapped port is not addressed to us and stays untouched (abuse case B9).
func (s *skeleton) dnatRules(b *chainBuilder) {
	in1 := b.base("dnat_inbound", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, priorityDNAT)
	to := b.plain("dnat_mapped")
	ours := rule(ipv4(s.table), match{addr(offDaddr, reg1), in(s.wanAddrs, reg1)})
	b.rule(in1, "from outside, to an address of ours", iifname(s.wanIfaces), ours, jump(to))
	b.rule(in1, "hairpin: from the LAN to our own WAN address", iifname(s.lanIfaces), ours, jump(to))

	translate := match{&expr.NAT{
		Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: r1,
	}}
	b.rule(to, "mappings for one remote host come first",
		ipv4(s.table),
		match{addr(offSaddr, r0), meta(expr.MetaKeyL4PROTO, r1), port(offDport, r2), lookup(s.mappedFrom, reg1, reg1)},
		translate)
	b.rule(to, "then those for a network or a source port",
		b.tcpOrUDP(), ipv4(s.table),
		match{
			addr(offSaddr, r0), meta(expr.MetaKeyL4PROTO, r1), port(offSport, r2), port(offDport, r3),
			lookup(s.mappedFiltered, reg1, reg1),
		},
		translate)
	b.rule(to, "mappings for anyone",
		match{meta(expr.MetaKeyL4PROTO, r0), port(offDport, r1), lookup(s.mapped, reg1, reg1)},
		translate)
}

// snatRules has flows that leave from a mapped endpoint keep its external port
// ("open NAT"), and makes the answers of hairpin flows come back through us.
//
// A masquerade to a port would need no address. But google/nftables v0.3.0
// writes that statement without the flag that makes the kernel heed the port
// (measured: the port is ignored), so the address comes from wan_source.
func (s *skeleton) snatRules(b *chainBuilder) {
	out := b.base("snat_outbound", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, prioritySNAT)
	b.rule(out, "what leaves from a mapped endpoint keeps its external port",
		oifname(s.wanIfaces), b.tcpOrUDP(), ipv4(s.table),
		match{
			meta(expr.MetaKeyOIFNAME, reg1), lookup(s.wanSource, reg1, reg1),
			addr(offSaddr, reg2), meta(expr.MetaKeyL4PROTO, r4+1), port(offSport, r4+2), lookup(s.kept, reg2, reg2),
		},
		snatToKept())
	s.spareRules(b, out)
	hairpin := rule(oifname(s.lanIfaces), ctStatusDNAT(), ipv4(s.table),
		match{addr(offSaddr, reg1), in(s.lanPrefixes, reg1)})
	back := b.plain("snat_hairpin")
	b.rule(out, "hairpin: the answer must come back through us",
		hairpin, b.tcpOrUDP(), original(s.flows.anyone), jump(back))
	b.rule(out, "hairpin to a mapping for one host",
		hairpin, b.tcpOrUDP(), originalFrom(s.flows.host), jump(back))
	b.rule(out, "hairpin to a mapping for a network or a source port",
		hairpin, l4proto(unix.IPPROTO_TCP), originalFiltered(s.flows.tcp), jump(back))
	b.rule(out, "the same",
		hairpin, l4proto(unix.IPPROTO_UDP), originalFiltered(s.flows.udp), jump(back))
	s.hairpinRules(b, back)
}

// hairpinRules make a host behind us look as it does from outside (RFC 4787 section
// 6, REQ-9): it has the address of ours that it sent to, and from a mapped endpoint
// the mapped port. So two consoles know each other as their game's server does.
func (s *skeleton) hairpinRules(b *chainBuilder, back *nftables.Chain) {
	b.rule(back, "from a mapped endpoint: its external port",
		b.tcpOrUDP(), ipv4(s.table),
		match{
			addr(offSaddr, reg2), meta(expr.MetaKeyL4PROTO, r4+1), port(offSport, r4+2), lookup(s.kept, reg2, reg2),
			originalAddr(reg1),
		},
		snatToKept())
	b.rule(back, "from another's external port: from a spare one",
		b.tcpOrUDP(), ipv4(s.table), fromMapped(s.mappedPorts), match{originalAddr(reg1)}, snatToSpare())
	b.rule(back, "from any other",
		ipv4(s.table), sign(),
		match{
			originalAddr(reg1),
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1},
		})
}

// The forms in which a packet is found to belong to a mapping. A flow is
// known by the external port it first went to and the internal endpoint it was
// translated to, so nothing that anybody else translated passes for ours.

// original: a packet towards the mapped host.
func original(flows *nftables.Set) match {
	return match{meta(expr.MetaKeyL4PROTO, r0), originalPort(r1), addr(offDaddr, r2), port(offDport, r3), in(flows, reg1)}
}

// reply: a packet from the mapped host.
func reply(flows *nftables.Set) match {
	return match{meta(expr.MetaKeyL4PROTO, r0), originalPort(r1), addr(offSaddr, r2), port(offSport, r3), in(flows, reg1)}
}

// originalFrom and replyTo have the remote host in front.
func originalFrom(flows *nftables.Set) match {
	return match{
		addr(offSaddr, r0), meta(expr.MetaKeyL4PROTO, r1), originalPort(r2), addr(offDaddr, r3), port(offDport, r4),
		in(flows, reg1),
	}
}

func replyTo(flows *nftables.Set) match {
	return match{
		addr(offDaddr, r0), meta(expr.MetaKeyL4PROTO, r1), originalPort(r2), addr(offSaddr, r3), port(offSport, r4),
		in(flows, reg1),
	}
}

// originalFiltered and replyFiltered have the remote host and its port in front,
// and a set that is for one transport.
func originalFiltered(flows *nftables.Set) match {
	return match{
		addr(offSaddr, r0), port(offSport, r1), originalPort(r2), addr(offDaddr, r3), port(offDport, r4),
		in(flows, reg1),
	}
}

func replyFiltered(flows *nftables.Set) match {
	return match{
		addr(offDaddr, r0), port(offDport, r1), originalPort(r2), addr(offSaddr, r3), port(offSport, r4),
		in(flows, reg1),
	}
}

// allowMapped fills a chain that lets pass the packets of mapped flows, both
// directions; it is used in our table and in that of the accept chain.
func (b *chainBuilder) allowMapped(c *nftables.Chain, flows flowSets, pass match) {
	v4 := ipv4(b.table)
	b.rule(c, "to a mapped host", ctDirection(0), b.tcpOrUDP(), v4, original(flows.anyone), pass)
	b.rule(c, "its answers", ctDirection(1), b.tcpOrUDP(), v4, reply(flows.anyone), pass)
	b.rule(c, "from the one remote host a mapping is for", ctDirection(0), b.tcpOrUDP(), v4, originalFrom(flows.host), pass)
	b.rule(c, "answers to it", ctDirection(1), b.tcpOrUDP(), v4, replyTo(flows.host), pass)
	for _, f := range []struct {
		proto byte
		set   *nftables.Set
	}{{unix.IPPROTO_TCP, flows.tcp}, {unix.IPPROTO_UDP, flows.udp}} {
		b.rule(c, "from a network or a source port a mapping is for",
			ctDirection(0), v4, l4proto(f.proto), originalFiltered(f.set), pass)
		b.rule(c, "answers there", ctDirection(1), v4, l4proto(f.proto), replyFiltered(f.set), pass)
	}
}

// forwardRules counts what passes, and refuses what package flows has ended. It lets
// nothing through that the owner's own forward chain drops: see accept.go.
func (s *skeleton) forwardRules(b *chainBuilder) {
	fwd := b.base("forward_mapped", nftables.ChainTypeFilter, nftables.ChainHookForward, priorityForward)
	allow, pins := b.plain("allow_mapped"), b.plain("allow_pinholes")
	b.rule(fwd, "a host does not carry on a connection of an ended mapping",
		ctDirection(0), ipv4(s.table), l4proto(unix.IPPROTO_TCP),
		match{addr(offSaddr, r0), port(offSport, r1), addr(offDaddr, r2), port(offDport, r3), in(s.ended, reg1)},
		match{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	s.refuseEnded(b, fwd)
	b.rule(fwd, "only what was translated can be ours", ctStatusDNAT(), jump(allow))
	b.rule(fwd, "IPv6 is not translated", ipv6(s.table), jump(pins))
	b.allowMapped(allow, s.flows, accept())
	b.allowPins(pins, s.pins, s.wan6Ifaces, s.lanIfaces, accept())
}
