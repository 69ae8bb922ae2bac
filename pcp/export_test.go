package pcp

import (
	"context"
	"net/netip"
	"time"

	"portcullis/internal/datagram"
	"portcullis/portmap"
)

// Answer returns the reply to one datagram, nil for silence, without a server
// around it.
func Answer(cfg *Config, now time.Time, source netip.AddrPort, b []byte) ([]byte, error) {
	if !isRequest(b) {
		return nil, nil
	}
	client, _, err := cfg.Identify(datagram.Packet{Source: source})
	if err != nil {
		return nil, err
	}
	return handler{cfg}.answer(context.Background(), now, client, b), nil
}

// CodeOf returns the PCP code of a refusal, how long it lasts, and the NAT-PMP code.
func CodeOf(err error, exact bool) (pcp int, lasts time.Duration, natpmp int) {
	c, lasts := codeOf(err, exact)
	return int(c), lasts, int(refusals[portmap.ReasonOf(err)].natpmp)
}

// Refusals counts the reasons that have codes.
func Refusals() int { return len(refusals) }

// Message is a PCP request as it was understood, for tests that write it again.
type Message struct {
	Op, Protocol       byte
	Lifetime           uint32
	Client, Address    netip.Addr
	Nonce              portmap.Nonce
	Internal, External uint16
	PreferFailure      bool
	Filtered, Reset    bool
	Filters            []portmap.Remote
	Described          bool
	Description        string
	SetSize            uint16
	Parity             bool
}

// Parse reads a request that has a whole header; code 0 is success.
func Parse(b []byte, source netip.Addr) (Message, int) {
	r, c := parse(b, source)
	m := Message{
		Op: r.op, Lifetime: r.lifetime, Client: r.client, Nonce: r.nonce, Protocol: r.protocol,
		Internal: r.internal, External: r.external, Address: r.address,
		PreferFailure: r.options.preferFailure, Filtered: r.options.filtered, Reset: r.options.reset,
		Filters: r.options.filters, Described: r.options.described, Description: r.options.description,
	}
	if set := r.options.set; set != nil {
		m.SetSize, m.Parity = set.size, set.parity
	}
	return m, int(c)
}
