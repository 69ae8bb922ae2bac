package pcp

import (
	"context"
	"net/netip"
	"time"

	"portcullis/portmap"
)

// Mapper is the engine (portmap.Engine).
type Mapper interface {
	MapSet(context.Context, portmap.Request, int) ([]portmap.Mapping, error)
	Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error)
}

const (
	// patience is how long the engine may take over one request, more than over a
	// transaction (portmap). Nobody else waits for it, and clients ask again after
	// 250 ms, 500 ms and so on (RFC 6886 section 3.1), or 3 s, 6 s and so on (RFC
	// 6887 section 8.1.1), for a minute and more.
	patience = 10 * time.Second

	// maxLease is the longest lease of PCP (RFC 6887 section 15), in seconds: where
	// nonces are strict, whoever lost one waits so long at most (abuse case I9).
	maxLease = 24 * 60 * 60

	// maxSet is how many ports one request may get (RFC 7753 section 4.1 leaves
	// it to the server); the quota of the client may be lower.
	maxSet = 64
)

// handler turns a request into a reply; nil is silence.
type handler struct {
	cfg *Config
}

// isRequest reports whether a datagram may be answered at all.
func isRequest(b []byte) bool { return len(b) >= 2 && b[1]&isReply == 0 }

// waits reports whether the answer to a request has to wait for the engine.
func (h handler) waits(b []byte) bool {
	switch {
	case b[0] == natpmpVersion && h.cfg.NATPMP:
		return b[1] == opMapUDP || b[1] == opMapTCP
	case b[0] == pcpVersion && h.cfg.PCP:
		return b[1] == opMap
	}
	return false
}

// answer decides by the version (RFC 6886 section 3.5 and RFC 6887 section 9).
func (h handler) answer(ctx context.Context, now time.Time, client portmap.Client, b []byte) []byte {
	epoch := h.cfg.Epoch.Seconds(now)
	switch {
	case b[0] == natpmpVersion && h.cfg.NATPMP:
		return h.natpmp(ctx, epoch, client, b)
	case !h.cfg.PCP:
		return versionReply(b[1], epoch)
	case b[0] != pcpVersion:
		return errorReply(b, unsuppVersion, unsuppVersion.lifetime(), epoch)
	case len(b) < headSize:
		return nil
	}
	return h.pcp(ctx, epoch, client, b)
}

// natpmp answers a request of version 0.
func (h handler) natpmp(ctx context.Context, epoch uint32, client portmap.Client, b []byte) []byte {
	switch b[1] {
	case opAddress:
		return h.address(epoch)
	case opMapUDP, opMapTCP:
	default:
		return opcodeReply(b[1], epoch)
	}
	m, ok := parseNATPMPMap(b)
	if !ok {
		return nil
	}
	client.Via = portmap.ViaNATPMP
	port, lifetime, err := h.mapNATPMP(ctx, client, m)
	if err != nil {
		return m.reply(refusals[portmap.ReasonOf(err)].natpmp, epoch, 0, 0)
	}
	return m.reply(resultOK, epoch, port, lifetime)
}

// address returns what the external address is, or that there is none.
func (h handler) address(epoch uint32) []byte {
	external := h.cfg.External()
	if !external.Is4() {
		return addressReply(resultNetworkFailure, epoch, netip.Addr{})
	}
	return addressReply(resultOK, epoch, external)
}

// mapNATPMP maps or unmaps (RFC 6886 sections 3.3 and 3.4).
func (h handler) mapNATPMP(ctx context.Context, c portmap.Client, m natpmpMap) (port uint16, lifetime uint32, err error) {
	transport := portmap.UDP
	if m.op == opMapTCP {
		transport = portmap.TCP
	}
	switch {
	case m.lifetime == 0 && m.internal == 0 && m.suggested != 0:
		// All mappings go when all three fields are 0; this is not it.
		return 0, 0, &portmap.Error{Reason: portmap.BadPort, Detail: "internal port 0 names no mapping"}
	case m.lifetime == 0:
		return 0, 0, h.unmap(ctx, portmap.Selector{Client: c, Transport: transport, Internal: m.internal})
	case m.internal == 0:
		return 0, 0, &portmap.Error{Reason: portmap.BadPort, Detail: "internal port 0 cannot be mapped"}
	}
	got, err := h.mapSet(ctx, portmap.Request{
		Client: c, Transport: transport,
		Internal:     netip.AddrPortFrom(c.Addr, m.internal),
		ExternalPort: m.suggested,
		Lifetime:     time.Duration(m.lifetime) * time.Second,
		Named:        portmap.ByInternal, RemotesAre: portmap.RemotesUnsaid, KeepDescription: true,
	}, 1)
	if err != nil {
		return 0, 0, err
	}
	return got[0].ExternalPort, min(m.lifetime, left(got[0], c.Via)), nil
}

// pcp answers a request of version 2 that has a whole header.
func (h handler) pcp(ctx context.Context, epoch uint32, client portmap.Client, b []byte) []byte {
	r, c := parse(b, client.Addr)
	lasts := c.lifetime()
	var lifetime uint32
	if c == success && r.op == opMap {
		var err error
		client.Via = portmap.ViaPCP
		if lifetime, err = h.mapPCP(ctx, client, &r); err != nil {
			c, lasts = codeOf(err, r.options.preferFailure)
		}
	}
	if c != success {
		return errorReply(b, c, lasts, epoch)
	}
	reply := r.appendReply(make([]byte, 0, len(b)), lifetime, epoch)
	if len(reply) > MaxDatagram {
		return errorReply(b, malformedRequest, longError, epoch)
	}
	return reply
}

// mapPCP maps or unmaps (RFC 6887 sections 11.3 and 15, RFC 7753 section 4), and
// completes r to what the reply says.
func (h handler) mapPCP(ctx context.Context, c portmap.Client, r *request) (lifetime uint32, err error) {
	if r.lifetime == 0 {
		return 0, h.unmapPCP(ctx, c, r)
	}
	kind, external := portmap.NAT4, h.cfg.External()
	if c.Addr.Is6() {
		// A firewall translates nothing (RFC 6887 section 11.3, step 5).
		kind, external = portmap.Pinhole6, c.Addr
	}
	if r.options.preferFailure && external.IsValid() && !r.possible(external, kind) {
		return 0, &portmap.Error{Reason: portmap.PortTaken, Detail: "the suggested address or port is not available"}
	}
	n, parity := 1, false
	if set := r.options.set; set != nil {
		n, parity = min(int(set.size), maxSet), set.parity
	}
	remotes := portmap.RemotesAdd
	if r.options.reset {
		remotes = portmap.RemotesReplace
	}
	got, err := h.mapSet(ctx, portmap.Request{
		Kind: kind, Client: c, Transport: portmap.Transport(r.protocol),
		Internal:        netip.AddrPortFrom(c.Addr, r.internal),
		ExternalPort:    r.external,
		Remotes:         r.options.filters,
		Lifetime:        time.Duration(min(r.lifetime, maxLease)) * time.Second,
		Exact:           r.options.preferFailure,
		Description:     r.options.description,
		Named:           portmap.ByInternal,
		RemotesAre:      remotes,
		Floored:         true,
		Nonce:           &r.nonce,
		KeepDescription: !r.options.described,
		Parity:          parity,
	}, n)
	if err != nil {
		return 0, err
	}
	r.external, r.address = got[0].ExternalPort, external
	r.answerSet(len(got))
	return left(got[0], c.Via), nil
}

// possible reports whether what is suggested is not ruled out from the start.
func (r *request) possible(external netip.Addr, kind portmap.Kind) bool {
	return (r.address.IsUnspecified() || r.address == external) && (kind == portmap.NAT4 || r.external == r.internal)
}

// unmapPCP deletes what PCP asked for, one mapping or a set. All ports or all protocols
// name what was never granted (PCP-50). What the client suggested goes back to it.
func (h handler) unmapPCP(ctx context.Context, c portmap.Client, r *request) error {
	s := portmap.Selector{Client: c, Transport: portmap.Transport(r.protocol), Internal: r.internal, Nonce: &r.nonce}
	size := 1
	if set := r.options.set; set != nil {
		size = min(int(set.size), 1<<16-int(r.internal))
		s.LastInternal = uint16(int(r.internal) + size - 1)
	}
	r.answerSet(size)
	if r.internal == 0 {
		return nil
	}
	return h.unmap(ctx, s)
}

// unmap deletes what one protocol asked for, in whatever other protocols its client
// asked for it too. That there is nothing to delete is no error (RFC 6886 section
// 3.4, RFC 6887 section 15); that the port stays open, because another protocol
// alone opened it, is one.
func (h handler) unmap(ctx context.Context, s portmap.Selector) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.Only = s.Client.Via
	_, err := h.cfg.Mapper.Unmap(ctx, s)
	if portmap.ReasonOf(err) == portmap.NoSuchMapping {
		return nil
	}
	return err
}

func (h handler) mapSet(ctx context.Context, r portmap.Request, n int) ([]portmap.Mapping, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return h.cfg.Mapper.MapSet(ctx, r, n)
}

// left returns the seconds that a mapping still has in a protocol: another one may
// have been promised more.
func left(m portmap.Mapping, via portmap.Via) uint32 { return seconds(m.LeaseLeft(via, time.Now())) }
