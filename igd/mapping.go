package igd

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portcullis/portmap"
	"portcullis/soap"
)

// addPortMapping wants this external port or nothing. No port is a wildcard here, so 0
// is 716 (CHOICE-6).
func addPortMapping(c *call) ([]string, error) {
	r, err := c.request()
	if err != nil {
		return nil, err
	}
	if r.ExternalPort == 0 {
		return nil, fail(codeNoWildcardPort)
	}
	r.Exact = true
	_, err = c.device.mapper.Map(c.ctx, r)
	return nil, err
}

// addAnyPortMapping takes the external port for a hint; 0 is no hint.
func addAnyPortMapping(c *call) ([]string, error) {
	r, err := c.request()
	if err != nil {
		return nil, err
	}
	if r.ExternalPort, err = c.hint(r); err != nil {
		return nil, err
	}
	m, err := c.device.mapper.Map(c.ctx, r)
	if err != nil {
		return nil, err
	}
	return []string{portText(m.ExternalPort)}, nil
}

// hint returns the external port to try first. A client that asked before, and
// was given another port than the one it names, means that mapping again: it
// is renewed, so that repeated requests do not pile up.
func (c *call) hint(r portmap.Request) (uint16, error) {
	if r.ExternalPort != 0 {
		held, err := c.device.mapper.External(c.ctx, r.Transport, r.ExternalPort, r.Remotes)
		if missing(err) || err == nil && held.Client.ID() == r.Client.ID() {
			return r.ExternalPort, nil
		}
		if err != nil {
			return 0, err
		}
	}
	if r.Internal.Addr() != c.client.Addr { // nobody has such a mapping
		return r.ExternalPort, nil
	}
	m, err := c.device.mapper.Internal(c.ctx, c.client.ID(), r.Transport, r.Internal.Port(), r.Remotes)
	if missing(err) {
		return r.ExternalPort, nil
	}
	return m.ExternalPort, err
}

// missing reports whether an answer is that there is no such mapping.
func missing(err error) bool { return portmap.ReasonOf(err) == portmap.NoSuchMapping }

// request builds the wish that an Add action states. What the arguments may not
// be in any case is refused here; the rest is for the engine to judge.
func (c *call) request() (portmap.Request, error) {
	if !c.client.Addr.Is4() {
		return portmap.Request{}, &fault{code: codeNotAuthorized, detail: "the request did not come from an IPv4 address"}
	}
	internal, err := c.internalClient()
	if err != nil {
		return portmap.Request{}, err
	}
	remotes, err := c.remotes()
	if err != nil {
		return portmap.Request{}, err
	}
	port := c.port("NewInternalPort")
	if port == 0 {
		if c.version >= 2 {
			return portmap.Request{}, fail(codeNoWildcardInt)
		}
		return portmap.Request{}, &fault{code: codeInvalidArgs, detail: "NewInternalPort cannot be 0"}
	}
	return portmap.Request{
		Client:       c.client,
		Kind:         portmap.NAT4,
		Transport:    c.transport(),
		Internal:     netip.AddrPortFrom(internal, port),
		ExternalPort: c.port("NewExternalPort"),
		Remotes:      remotes,
		Lifetime:     time.Duration(c.number("NewLeaseDuration")) * time.Second,
		Disabled:     !c.true("NewEnabled"),
		Description:  cut(c.text("NewPortMappingDescription"), portmap.MaxDescription),

		ZeroIsEndless: true,
	}, nil
}

func (c *call) transport() portmap.Transport {
	if strings.EqualFold(c.text("NewProtocol"), "TCP") {
		return portmap.TCP
	}
	return portmap.UDP
}

// internalClient reads the target. A name is never resolved, and a literal must
// be written the one usual way (abuse case B5). A blank target is the requester
// itself (compatibility). Whether a client may name this address is for the
// engine to say.
func (c *call) internalClient() (netip.Addr, error) {
	s := c.text("NewInternalClient")
	if strings.TrimSpace(s) == "" {
		return c.client.Addr, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}, &fault{code: codeInvalidArgs, detail: "NewInternalClient is not an IPv4 address"}
	}
	return a, nil
}

// anyone are the ways in which a NewRemoteHost says that it restricts nobody, and who
// writes them. None of them can be an address that somebody has, so that no
// restriction is lost with them.
var anyone = []struct{ text, client string }{
	{"", "WANIPConnection:1 section 2.3.16"},
	{"*", "control points that show it so"},
	{"0.0.0.0", "async_upnp_client, whose argument is an address; scripts with upnpclient"},
	{"undefined", "nat-upnp-ts 2.0 and nat-upnp-rejetto 2.1: JavaScript's word for nothing"},
}

// remotes reads NewRemoteHost. Names are not resolved: what they resolve to could
// change while the mapping lives. Code 726, which would say "anybody only", is retired
// in version 2.
func (c *call) remotes() ([]portmap.Remote, error) {
	s := strings.TrimSpace(c.text("NewRemoteHost"))
	for _, all := range anyone {
		if s == all.text {
			return nil, nil
		}
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return nil, &fault{code: codeInvalidArgs, detail: "NewRemoteHost is not an IPv4 address"}
	}
	return []portmap.Remote{{Prefix: netip.PrefixFrom(a, a.BitLen())}}, nil
}

// deletePortMapping removes the client's own mapping with this very key.
func deletePortMapping(c *call) ([]string, error) {
	remotes, err := c.remotes()
	if err != nil {
		return nil, err
	}
	port := c.port("NewExternalPort")
	if port == 0 { // to a Selector it would mean every port
		return nil, fail(codeNoSuchEntry)
	}
	_, err = c.device.mapper.Unmap(c.ctx, portmap.Selector{
		Client: c.client, Transport: c.transport(), FirstPort: port, LastPort: port,
		Remotes: remotes, ExactRemotes: true,
	})
	return nil, err
}

// deletePortMappingRange removes the client's own mappings in the range, in one step.
// NewManage is ignored: nobody here is more than a client (WANIPConnection:2 section
// 2.5; abuse case C3).
func deletePortMappingRange(c *call) ([]string, error) {
	first, last, err := c.portRange()
	if err != nil {
		return nil, err
	}
	if last == 0 { // to a Selector 0 to 0 would mean every port
		return nil, fail(codeMappingNotFound)
	}
	_, err = c.device.mapper.Unmap(c.ctx, portmap.Selector{
		Client: c.client, Transport: c.transport(), FirstPort: max(1, first), LastPort: last,
		Only: portmap.ViaUPnP, // what another protocol asked for stays (RFC 6970)
	})
	switch portmap.ReasonOf(err) {
	case portmap.NoSuchMapping, portmap.NotOwner:
		return nil, fail(codeMappingNotFound)
	}
	return nil, err
}

func (c *call) portRange() (first, last uint16, err error) {
	first, last = c.port("NewStartPort"), c.port("NewEndPort")
	if first > last {
		return 0, 0, fail(codeInconsistent)
	}
	return first, last, nil
}

// getGenericPortMappingEntry shows the client its own mappings under indexes
// without gaps. The document would have 606 for the others' (section 2.5.14),
// but clients stop at the first error and would never see what follows.
func getGenericPortMappingEntry(c *call) ([]string, error) {
	if !c.client.Addr.Is4() { // it has pinholes
		return nil, fail(codeInvalidIndex)
	}
	own, err := c.device.mapper.Own(c.ctx, c.client.ID(), int(c.number("NewPortMappingIndex")), 1)
	if err != nil {
		return nil, err
	}
	if len(own.Mappings) == 0 {
		return nil, fail(codeInvalidIndex)
	}
	m := own.Mappings[0]
	key := []string{remoteHost(m.Remotes), portText(m.ExternalPort), protocol(m.Transport)}
	return append(key, c.entry(&m)...), nil
}

func getSpecificPortMappingEntry(c *call) ([]string, error) {
	remotes, err := c.remotes()
	if err != nil {
		return nil, err
	}
	m, err := c.device.mapper.External(c.ctx, c.transport(), c.port("NewExternalPort"), remotes)
	if err != nil && !missing(err) {
		return nil, err
	}
	if err != nil || m.Kind != portmap.NAT4 || m.Client.ID() != c.client.ID() {
		return nil, fail(codeNoSuchEntry)
	}
	return c.entry(&m), nil
}

// entry returns the arguments of mappingRest. No secret is among them (abuse case
// C5).
func (c *call) entry(m *portmap.Mapping) []string {
	return []string{
		portText(m.Internal.Port()),
		m.Internal.Addr().String(),
		soap.FormatBoolean(!m.Disabled),
		m.Description,
		lease(m, c.version, c.now),
	}
}

// lease is the time left in seconds; 0 means for ever, so what is nearly over shows 1.
// Version 1 gets back the 0 that it asked for (WANIPConnection:1 section 2.4.17: a
// static mapping); in version 2 only an administrator's has no end, and 0 asks for a
// week (CHOICE-7).
func lease(m *portmap.Mapping, version int, now time.Time) string {
	left := m.Left(now)
	if m.Claims.Has(portmap.ViaUPnP) {
		left = m.LeaseLeft(portmap.ViaUPnP, now)
	}
	if left < 0 || m.Endless && version < 2 {
		return "0"
	}
	return strconv.FormatInt(min(max(1, int64((left+time.Second-1)/time.Second)), math.MaxUint32), 10)
}

func protocol(t portmap.Transport) string { return strings.ToUpper(t.String()) }

// remoteHost writes the restriction. What UPnP cannot express (PCP filters with
// several prefixes, or with ports) is shown as text that no request can mean,
// rather than as "anybody". It has no blanks.
func remoteHost(remotes []portmap.Remote) string {
	return strings.ReplaceAll(portmap.RemotesString(remotes), " port ", ":")
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }
