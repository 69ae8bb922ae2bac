package nft

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"portcullis/portmap"
)

// conditions are what a packet must be to get to a point in the owner's rules,
// as far as it is understood. They go on through a jump: fw4 and firewalld name the
// interface before it, netavark the port.
type conditions struct {
	claims  []claim // what it may be; none: nothing gets there
	unclear bool    // and something that is not understood
}

// claim is a block of ports.
type claim struct {
	transports transports
	low, high  uint16
}

// transports is a set of TCP and UDP.
type transports uint8

const (
	onlyTCP transports = 1 << iota
	onlyUDP
	both = onlyTCP | onlyUDP
)

func transportBit(proto byte) transports {
	switch portmap.Transport(proto) {
	case portmap.TCP:
		return onlyTCP
	case portmap.UDP:
		return onlyUDP
	}
	return 0
}

func (t transports) has(p portmap.Transport) bool { return t&transportBit(byte(p)) != 0 }

func anything() conditions { return conditions{claims: []claim{{both, 0, 65535}}} }

func (c conditions) copy() conditions {
	return conditions{claims: slices.Clone(c.claims), unclear: c.unclear}
}

func (c *conditions) never() bool { return len(c.claims) == 0 }

func (c *conditions) anyPort() bool {
	return slices.ContainsFunc(c.claims, func(cl claim) bool { return cl.low == 0 && cl.high == 65535 })
}

// maxClaims bounds the work for large sets behind large sets.
const maxClaims = 1 << 20

// restrict keeps what is in one of the claims, too.
func (c *conditions) restrict(to ...claim) {
	if uint64(len(c.claims))*uint64(len(to)) > maxClaims {
		c.unclear = true
		return
	}
	var kept []claim
	for _, a := range c.claims {
		for _, b := range to {
			x := claim{a.transports & b.transports, max(a.low, b.low), min(a.high, b.high)}
			if x.transports != 0 && x.low <= x.high {
				kept = append(kept, x)
			}
		}
	}
	c.claims = kept
}

// ports restricts to a range of ports, or to all others.
func (c *conditions) ports(low, high uint16, others bool) {
	if !others {
		c.restrict(claim{both, low, high})
		return
	}
	var rest []claim
	if low > 0 {
		rest = append(rest, claim{both, 0, low - 1})
	}
	if high < 65535 {
		rest = append(rest, claim{both, high + 1, 65535})
	}
	c.restrict(rest...)
}

// field is what an expression loads, and how many bytes of a set's key it takes.
type field struct {
	content content
	size    int
}

type content uint8

const (
	contentOther content = iota
	contentProto
	contentDport
	contentIface
	contentDaddr
	contentNFProto
)

// loaded are the fields that a rule has loaded since it last compared something, in
// order. One is compared with a value; the key of a set may be made of several. Which
// register each is in is not looked at: all programs that write rules compare what they
// have just loaded.
type loaded struct {
	fields   []field
	compared bool
}

func (l *loaded) add(f field) {
	if l.compared {
		*l = loaded{}
	}
	l.fields = append(l.fields, f)
}

// spoil forgets what was loaded last, because it was changed.
func (l *loaded) spoil() {
	if n := len(l.fields); n > 0 {
		l.fields[n-1].content = contentOther
	}
}

// last returns what a value is compared with. Two comparisons may follow one load.
func (l *loaded) last() content {
	l.compared = true
	if n := len(l.fields); n > 0 {
		return l.fields[n-1].content
	}
	return contentOther
}

// condition follows an expression that loads or compares.
func (s *foreignScan) condition(e expr.Any, now *loaded, cond *conditions) {
	switch e := e.(type) {
	case *expr.Meta:
		now.add(metaField(e.Key))
	case *expr.Payload:
		now.add(field{s.payloadContent(e), int(e.Len+3) / 4 * 4})
	case *expr.Bitwise:
		now.spoil()
	case *expr.Cmp:
		s.compare(cond, now.last(), e)
	case *expr.Range:
		s.between(cond, now.last(), e.FromData, e.ToData, e.Op == expr.CmpOpNeq)
	case *expr.Match:
		matchXT(cond, e)
	case *expr.Counter, *expr.Immediate:
	default:
		cond.unclear = true
	}
}

func metaField(key expr.MetaKey) field {
	switch key {
	case expr.MetaKeyL4PROTO:
		return field{contentProto, 4}
	case expr.MetaKeyIIFNAME:
		return field{contentIface, unix.IFNAMSIZ}
	case expr.MetaKeyNFPROTO:
		return field{contentNFProto, 4}
	}
	return field{contentOther, 4}
}

func (s *foreignScan) payloadContent(e *expr.Payload) content {
	const transport, network = expr.PayloadBaseTransportHeader, expr.PayloadBaseNetworkHeader
	switch {
	case s.six && e.Base == network && e.Offset == offNext && e.Len == 1:
		return contentProto
	case s.six && e.Base == network && e.Offset == offDaddr6 && e.Len == 16:
		return contentDaddr
	case s.six && e.Base == network:
	case e.Base == transport && e.Offset == offDport && e.Len == 2:
		return contentDport
	case e.Base == network && e.Offset == offProto && e.Len == 1:
		return contentProto
	case e.Base == network && e.Offset == offDaddr && e.Len == 4:
		return contentDaddr
	}
	return contentOther
}

// compare narrows the conditions to a comparison.
func (s *foreignScan) compare(cond *conditions, c content, e *expr.Cmp) {
	switch e.Op {
	case expr.CmpOpEq, expr.CmpOpNeq:
		s.between(cond, c, e.Data, e.Data, e.Op == expr.CmpOpNeq)
	case expr.CmpOpGte: // a range is two comparisons to some versions of nft
		s.between(cond, c, e.Data, []byte{0xff, 0xff}, false)
	case expr.CmpOpLte:
		s.between(cond, c, []byte{0, 0}, e.Data, false)
	default:
		cond.unclear = true
	}
}

// between narrows the conditions to the values of a field from low to high, or to all
// others. Ranges are understood of ports only.
func (s *foreignScan) between(cond *conditions, c content, low, high []byte, others bool) {
	if c == contentDport && len(low) >= 2 && len(high) >= 2 {
		cond.ports(binary.BigEndian.Uint16(low), binary.BigEndian.Uint16(high), others)
		return
	}
	if len(low) == 0 || !bytes.Equal(low, high) || c == contentDaddr && len(low) < 4 { // a prefix
		c = contentOther
	}
	possible := true
	switch c {
	case contentProto:
		t := transportBit(low[0])
		if others {
			t = both &^ t
		}
		cond.restrict(claim{t, 0, 65535})
	case contentNFProto:
		family := byte(unix.NFPROTO_IPV4)
		if s.six {
			family = unix.NFPROTO_IPV6
		}
		possible = (low[0] == family) != others
	case contentIface:
		possible = slices.ContainsFunc(s.wan, func(name string) bool { return bytes.HasPrefix(ifnameKey(name), low) != others })
	case contentDaddr:
		possible = slices.ContainsFunc(s.wanAddrs, func(a []byte) bool { return bytes.Equal(a, low) != others })
	default:
		cond.unclear = true
	}
	if !possible {
		cond.claims = nil
	}
}

// member is an element of a set, with the last key of its range.
type member struct {
	key, last, val []byte
}

// spans turns elements into members. An interval set lists where ranges begin
// and where they end as elements of their own.
func spans(elements []element) []member {
	sort.SliceStable(elements, func(i, j int) bool {
		a, b := elements[i], elements[j]
		order := bytes.Compare(a.key, b.key)
		return order < 0 || order == 0 && a.intervalEnd && !b.intervalEnd
	})
	var members []member
	open := -1 // the member whose end is not known yet
	for _, el := range elements {
		if el.intervalEnd {
			if open >= 0 {
				members[open].last = before(el.key)
			}
			open = -1
			continue
		}
		m := member{key: el.key, last: el.key, val: el.val}
		if el.keyEnd != nil {
			m.last = el.keyEnd
		}
		members = append(members, m)
		open = len(members) - 1
	}
	return members
}

// before returns the key just before k.
func before(k []byte) []byte {
	b := slices.Clone(k)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}

// narrow keeps what may be one of a set's members.
func (s *foreignScan) narrow(cond *conditions, fields []field, members []member) {
	var all []claim
	for _, m := range members {
		one := anything()
		off := 0
		for _, f := range fields {
			if off >= len(m.key) {
				break
			}
			end := min(off+f.size, len(m.key))
			s.between(&one, f.content, m.key[off:end], m.last[off:end], false)
			off = end
		}
		all = append(all, one.claims...)
		cond.unclear = cond.unclear || one.unclear
	}
	cond.restrict(all...)
}

// matchXT narrows the conditions to an extension of iptables.
func matchXT(cond *conditions, e *expr.Match) {
	switch info := e.Info.(type) {
	case *xt.Tcp:
		cond.restrict(claim{onlyTCP, 0, 65535})
		cond.ports(info.DstPorts[0], info.DstPorts[1], info.InvFlags&xt.TcpInvDestPorts != 0)
	case *xt.Udp:
		cond.restrict(claim{onlyUDP, 0, 65535})
		cond.ports(info.DstPorts[0], info.DstPorts[1], info.InvFlags&xt.UdpInvDestPorts != 0)
	case *xt.Comment, *xt.AddrType, *xt.AddrTypeV1:
		// An address type is "one of ours" in a port forward.
	case *xt.Unknown:
		if e.Name != "multiport" || !multiport(cond, *info) {
			cond.unclear = true
		}
	default:
		cond.unclear = true
	}
}

// multiport reads revision 1 of the extension of that name: what is compared
// (1: destination ports), a count, up to fifteen ports, a flag for each that
// begins a range, and whether all of it is inverted.
func multiport(cond *conditions, info []byte) bool {
	const ports, ranges, inverted, size = 2, 32, 47, 48
	if len(info) < size || info[0] != 1 || info[inverted] != 0 {
		return false
	}
	var any []claim
	count := min(int(info[1]), 15)
	for i := 0; i < count; i++ {
		low := binaryutil.NativeEndian.Uint16(info[ports+2*i:])
		high := low
		if info[ranges+i] != 0 && i+1 < count {
			i++
			high = binaryutil.NativeEndian.Uint16(info[ports+2*i:])
		}
		any = append(any, claim{both, low, high})
	}
	cond.restrict(any...)
	return true
}
