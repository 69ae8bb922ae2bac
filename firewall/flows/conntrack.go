package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// conntrack is the kernel's list of flows. It is read as a stream, because whoever
// is on the LAN sets its size: what is kept of it in memory is one datagram and a
// batch of the flows that were looked for. The sockets are opened when they are
// first needed.
type conntrack struct {
	netns    int           // file descriptor of a network namespace; 0: the current one
	patience time.Duration // bounds each wait for the kernel
	list     *socket
	change   *socket
	closed   bool
}

// query is which flows to list: of IPv6 addresses the kernel's filter tells those that are
// others (measured with 6.18), so one of them is never named. The kernel looks through all of them either way,
// but tells only those (Linux 5.8; an older one tells all, and who asks looks again).
type query struct {
	family    byte // unix.AF_INET or AF_INET6
	transport portmap.Transport
	port      uint16     // where the first packet went; 0: any
	answersTo uint16     // where answers go to; 0: any
	at        netip.Addr // likewise, of IPv4; not together with a port
}

// found is a flow in a listing; only good until the next one is read.
type found struct {
	Flow
	attrs []byte
}

// name returns the attributes by which the kernel knows exactly this flow.
func (f found) name() []byte {
	var name []byte
	for kind, value, rest, ok := next(f.attrs); ok; kind, value, rest, ok = next(rest) {
		switch kind {
		case ctaTupleOrig:
			name = nested(name, kind, value)
		case ctaID, ctaZone:
			name = attribute(name, kind, value)
		}
	}
	return name
}

const (
	batch  = 256      // flows that are ended at once
	buffer = 64 << 10 // the kernel's datagrams are half as large at most
)

func (c *conntrack) open() error {
	if c.closed {
		return firewall.ErrClosed
	}
	for _, s := range []**socket{&c.list, &c.change} {
		if *s != nil {
			continue
		}
		opened, err := openSocket(c.netns, c.patience, 0)
		if err != nil {
			return fmt.Errorf("opening conntrack: %w", err)
		}
		*s = opened
	}
	return nil
}

func (c *conntrack) close() {
	for _, s := range []**socket{&c.list, &c.change} {
		if *s != nil {
			(*s).close()
			*s = nil
		}
	}
}

// errStop ends a walk early.
var errStop = errors.New("enough")

// walk hands on the flows that the query asks for, and others where the kernel does
// not filter. A listing that changed meanwhile may leave some out, or tell some
// twice. After any error half an answer may be left in the socket, so it is closed.
func (c *conntrack) walk(q query, each func(found) error) error {
	if err := c.open(); err != nil {
		return err
	}
	if err := c.list.send(ctGet, unix.NLM_F_DUMP, q.family, q.attributes()); err != nil {
		c.close()
		return fmt.Errorf("listing flows: %w", err)
	}
	for {
		over, err := c.list.receive(func(payload []byte) error {
			f, ok := decode(payload)
			if !ok {
				return nil
			}
			return each(f)
		})
		if err != nil {
			c.close()
			if errors.Is(err, errStop) {
				return nil
			}
			return fmt.Errorf("listing flows: %w", err)
		}
		if over {
			return nil
		}
	}
}

// end forgets a flow. One that is gone already is no error.
func (c *conntrack) end(family byte, name []byte) (ended bool, err error) {
	err = c.change.send(ctDelete, unix.NLM_F_ACK, family, name)
	if err == nil {
		_, err = c.change.receive(nil)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	}
	c.close()
	return false, fmt.Errorf("ending a flow: %w", err)
}

// endAll ends the flows that the query and find find, some at a time. Those hosts
// that could carry them on are refused first, or they would begin anew what is being
// ended.
func (c *conntrack) endAll(q query, find func(Flow) (bool, error), refuse func([]Flow) error) (ended uint, err error) {
	var flows []Flow
	var names [][]byte
	var refused error
	flush := func() error {
		if hosts := slices.DeleteFunc(flows, func(f Flow) bool { return !f.carriedOn() }); len(hosts) > 0 {
			refused = errors.Join(refused, refuse(hosts))
		}
		for _, name := range names {
			done, err := c.end(q.family, name)
			if err != nil {
				return err
			}
			if done {
				ended++
			}
		}
		flows, names = flows[:0], names[:0]
		return nil
	}
	err = c.walk(q, func(f found) error {
		if over, err := find(f.Flow); !over {
			return err
		}
		flows, names = append(flows, f.Flow), append(names, f.name())
		if len(names) < batch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return ended, errors.Join(refused, err)
}

// Messages and attributes of nfnetlink_conntrack.h, and the flags of its filter.
const (
	ctNew, ctGet, ctDelete = 0, 1, 2

	ctaTupleOrig, ctaTupleReply, ctaID, ctaZone, ctaFilter = 1, 2, 12, 18, 25

	ctaTupleIP, ctaTupleProto           = 1, 2
	ctaV4Src, ctaV4Dst                  = 1, 2
	ctaV6Src, ctaV6Dst                  = 3, 4
	ctaProtoNum, ctaSrcPort, ctaDstPort = 1, 2, 3
	ctaFilterOrig, ctaFilterReply       = 1, 2
	byDst, byProtocol, byDstPort        = 1 << 1, 1 << 3, 1 << 5
)

// attributes returns the kernel's filter, or nothing where all flows are asked for.
func (q query) attributes() []byte {
	if q.port == 0 && q.answersTo == 0 && !q.at.IsValid() {
		return nil
	}
	proto := func(port uint16) []byte {
		b := attribute(nil, ctaProtoNum, []byte{byte(q.transport)})
		return nested(nil, ctaTupleProto, attribute(b, ctaDstPort, binary.BigEndian.AppendUint16(nil, port)))
	}
	var tuples []byte
	var orig, reply uint32
	if q.port != 0 {
		orig = byProtocol | byDstPort
		tuples = nested(tuples, ctaTupleOrig, proto(q.port))
	}
	if q.answersTo != 0 {
		reply = byProtocol | byDstPort
		tuples = nested(tuples, ctaTupleReply, proto(q.answersTo))
	}
	if q.at.IsValid() {
		reply = byDst
		tuples = nested(tuples, ctaTupleReply, nested(nil, ctaTupleIP, attribute(nil, ctaV4Dst, q.at.AsSlice())))
	}
	flags := attribute(nil, ctaFilterOrig, binary.NativeEndian.AppendUint32(nil, orig))
	flags = attribute(flags, ctaFilterReply, binary.NativeEndian.AppendUint32(nil, reply))
	return nested(tuples, ctaFilter, flags)
}

// decode reads one flow of TCP or UDP.
func decode(payload []byte) (f found, ok bool) {
	if len(payload) < sizeofNFGen {
		return found{}, false
	}
	f.attrs = payload[sizeofNFGen:]
	var orig, reply tuple
	for kind, value, rest, ok := next(f.attrs); ok; kind, value, rest, ok = next(rest) {
		switch kind {
		case ctaTupleOrig:
			orig = tupleIn(value)
		case ctaTupleReply:
			reply = tupleIn(value)
		}
	}
	f.Flow = Flow{
		Transport: portmap.Transport(orig.proto), Src: orig.src(), Dst: orig.dst(), AnswersFrom: reply.src(), AnswersTo: reply.dst(),
	}
	return f, f.Transport.Valid() && f.Src.IsValid() && f.Dst.IsValid() && f.AnswersFrom.IsValid() && f.AnswersTo.IsValid()
}

// tuple is one direction of a flow.
type tuple struct {
	proto        byte
	from, to     netip.Addr
	sport, dport uint16
}

func (t tuple) src() netip.AddrPort { return netip.AddrPortFrom(t.from, t.sport) }

func (t tuple) dst() netip.AddrPort { return netip.AddrPortFrom(t.to, t.dport) }

func tupleIn(b []byte) (t tuple) {
	for kind, part, rest, ok := next(b); ok; kind, part, rest, ok = next(rest) {
		for inner, value, rest, ok := next(part); ok; inner, value, rest, ok = next(rest) {
			switch {
			case kind == ctaTupleIP && (inner == ctaV4Src || inner == ctaV6Src):
				t.from, _ = netip.AddrFromSlice(value)
			case kind == ctaTupleIP && (inner == ctaV4Dst || inner == ctaV6Dst):
				t.to, _ = netip.AddrFromSlice(value)
			case kind == ctaTupleProto && inner == ctaProtoNum && len(value) > 0:
				t.proto = value[0]
			case kind == ctaTupleProto && inner == ctaSrcPort && len(value) > 1:
				t.sport = binary.BigEndian.Uint16(value)
			case kind == ctaTupleProto && inner == ctaDstPort && len(value) > 1:
				t.dport = binary.BigEndian.Uint16(value)
			}
		}
	}
	return t
}
