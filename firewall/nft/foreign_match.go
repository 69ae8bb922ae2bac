package nft

import (
	"bytes"
	"cmp"
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
// as far as it is understood.
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

// content is what a register holds.
type content uint8

const (
	contentOther content = iota
	contentProto
	contentDport
	contentIface
	contentDaddr
	contentNFProto
)

// registers are the kernel's sixteen slots of four bytes.
type registers [16]content

// slotOf returns the first slot of a register, in the old numbering or the new.
func slotOf(reg uint32) int {
	switch {
	case reg >= unix.NFT_REG32_00 && reg <= unix.NFT_REG32_15:
		return int(reg - unix.NFT_REG32_00)
	case reg >= unix.NFT_REG_1 && reg <= unix.NFT_REG_4:
		return int(reg-unix.NFT_REG_1) * 4
	}
	return 0
}

func (r *registers) set(slot, width int, c content) {
	for i := slot; i < min(slot+width, len(r)); i++ {
		r[i] = c
	}
}

// widthOf returns how many slots a content takes.
func widthOf(c content) int {
	if c == contentIface {
		return 4
	}
	return 1
}

// condition follows an expression that loads or compares.
func (s *foreignScan) condition(e expr.Any, regs *registers, cond *conditions) {
	switch e := e.(type) {
	case *expr.Meta:
		c := metaContent(e.Key)
		regs.set(slotOf(e.Register), widthOf(c), c)
	case *expr.Payload:
		regs.set(slotOf(e.DestRegister), max(1, int(e.Len+3)/4), payloadContent(e))
	case *expr.Bitwise:
		regs.set(slotOf(e.DestRegister), max(1, int(e.Len+3)/4), contentOther)
	case *expr.Cmp:
		s.compare(cond, regs[slotOf(e.Register)], e)
	case *expr.Range:
		if regs[slotOf(e.Register)] != contentDport || len(e.FromData) < 2 || len(e.ToData) < 2 {
			cond.unclear = true
			return
		}
		cond.ports(binary.BigEndian.Uint16(e.FromData), binary.BigEndian.Uint16(e.ToData), e.Op == expr.CmpOpNeq)
	case *expr.Match:
		matchXT(cond, e)
	case *expr.Counter, *expr.Log, *expr.Immediate:
	default:
		cond.unclear = true
	}
}

func metaContent(key expr.MetaKey) content {
	switch key {
	case expr.MetaKeyL4PROTO:
		return contentProto
	case expr.MetaKeyIIFNAME:
		return contentIface
	case expr.MetaKeyNFPROTO:
		return contentNFProto
	}
	return contentOther
}

func payloadContent(e *expr.Payload) content {
	const transport, network = expr.PayloadBaseTransportHeader, expr.PayloadBaseNetworkHeader
	switch {
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
	if c == contentDport && len(e.Data) >= 2 {
		p := binary.BigEndian.Uint16(e.Data)
		switch e.Op {
		case expr.CmpOpGte:
			cond.ports(p, 65535, false)
		case expr.CmpOpLte:
			cond.ports(0, p, false)
		case expr.CmpOpEq, expr.CmpOpNeq:
			cond.ports(p, p, e.Op == expr.CmpOpNeq)
		default:
			cond.unclear = true
		}
		return
	}
	if e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
		cond.unclear = true
		return
	}
	s.is(cond, c, e.Data, e.Op == expr.CmpOpNeq)
}

// is narrows the conditions to a value, or to all others.
func (s *foreignScan) is(cond *conditions, c content, value []byte, others bool) {
	possible := true
	if len(value) == 0 {
		c = contentOther
	}
	switch c {
	case contentProto:
		t := transportBit(value[0])
		if others {
			t = both &^ t
		}
		cond.restrict(claim{t, 0, 65535})
		return
	case contentNFProto:
		possible = (value[0] == unix.NFPROTO_IPV4) != others
	case contentIface:
		possible = slices.ContainsFunc(s.wan, func(name string) bool {
			return bytes.HasPrefix(ifnameKey(name), value) != others
		})
	case contentDaddr:
		if len(value) < 4 {
			cond.unclear = true // a prefix
			return
		}
		possible = slices.ContainsFunc(s.wanAddrs, func(a []byte) bool { return bytes.Equal(a, value) != others })
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
		return cmp.Or(bytes.Compare(a.key, b.key), -compareBool(a.intervalEnd, b.intervalEnd)) < 0
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

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
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

// narrow keeps what may be one of a set's members. The key is the content of
// neighbouring registers.
func (s *foreignScan) narrow(cond *conditions, regs *registers, from int, members []member) {
	var all []claim
	unclear := false
	for _, m := range members {
		one := anything()
		slot := from
		for off := 0; off < len(m.key) && slot < len(regs); {
			c := regs[slot]
			n := widthOf(c)
			end := min(off+4*n, len(m.key))
			s.inRange(&one, c, m.key[off:end], m.last[off:end])
			slot, off = slot+n, off+4*n
		}
		all = append(all, one.claims...)
		unclear = unclear || one.unclear
	}
	cond.restrict(all...)
	cond.unclear = cond.unclear || unclear
}

func (s *foreignScan) inRange(cond *conditions, c content, low, high []byte) {
	switch {
	case c == contentDport && len(low) >= 2 && len(high) >= 2:
		cond.ports(binary.BigEndian.Uint16(low), binary.BigEndian.Uint16(high), false)
	case c == contentOther || !bytes.Equal(low, high) || len(low) == 0:
		cond.unclear = true
	default:
		s.is(cond, c, low, false)
	}
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
