package igd_test

import (
	"context"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

func TestPinholeByNumber(t *testing.T) {
	t.Parallel()
	l := start(t)
	t.Run("SOAP-52/unknown", func(t *testing.T) {
		for action, args := range byNumber("4711") {
			r := l.call(sixA, six1, action, args...)
			wantCode(t, r, 704)
			if r.Description != "NoSuchEntry" {
				t.Errorf("%s: %q", action, r.Description)
			}
		}
	})
	number := l.open(t, sixA)
	t.Run("B6/no number", func(t *testing.T) {
		for _, odd := range []string{"", "-", "65536", "-1", "+1", number + "x", "0x10", number + ".0", "*"} {
			for action, args := range byNumber(odd) {
				wantCode(t, l.call(sixA, six1, action, with(args, "UniqueID", odd)...), 402)
			}
		}
	})
	t.Run("lease of an update", func(t *testing.T) {
		for lease, code := range map[string]int{"0": 601, "86401": 601, "4294967296": 402, "": 402, "-": 402, "1": 0, "86400": 0} {
			wantCode(t, l.call(sixA, six1, "UpdatePinhole", with([]string{"UniqueID", number, "NewLeaseTime", ""}, "NewLeaseTime", lease)...), code)
		}
	})
	t.Run("J4/another host's is like none", func(t *testing.T) {
		want, before := l.free(), l.numbered(t, number)
		for _, from := range []host{sixB, privacyB, hostB, host6, heirOfA} {
			for action, args := range byNumber(number) {
				known, none := l.raw(from, action, args), l.raw(from, action, byNumber(want)[action])
				if known != none || !strings.Contains(known, "<errorCode>704<") {
					t.Errorf("%s from %s: %s\nfor one that does not exist: %s", action, from.client.Addr, known, none)
				}
			}
		}
		wantCode(t, l.call(heirOfA, six1, "AddPinhole", pinhole(heirOfA)...), 606)
		if diff := cmp.Diff(before.Expires, l.numbered(t, number).Expires); diff != "" {
			t.Errorf("the lease changed: %s", diff)
		}
	})
	t.Run("the owner, by each of its addresses", func(t *testing.T) {
		for i, from := range []host{sixA, privacyA, hostA, linkA} {
			lease := strconv.Itoa(1000 * (i + 1))
			wantCode(t, l.call(from, six1, "UpdatePinhole", "UniqueID", number, "NewLeaseTime", lease), 0)
			wantLeft(t, l.numbered(t, number), time.Duration(1000*(i+1))*time.Second)
			wantCode(t, l.call(from, six1, "GetPinholePackets", "UniqueID", number), 0)
			wantCode(t, l.call(from, six1, "CheckPinholeWorking", "UniqueID", number), 709)
		}
		for _, from := range []host{sixA, privacyA, hostA, linkA} {
			n := l.open(t, sixA)
			wantCode(t, l.call(from, six1, "DeletePinhole", "UniqueID", n), 0)
			wantCode(t, l.call(from, six1, "DeletePinhole", "UniqueID", n), 704)
			l.wantTable(t)
		}
	})
}

// raw returns the body of the reply.
func (l *lan) raw(from host, action string, args []string) string {
	l.t.Helper()
	resp := l.do(from, "POST", l.url(2, "WANIPv6FirewallControl", "control"), envelope(typePrefix+six1, action, argsXML(args...)),
		"SOAPACTION", `"`+typePrefix+six1+"#"+action+`"`, "CONTENT-TYPE", "text/xml")
	body, _ := io.ReadAll(resp.Body)
	return strconv.Itoa(resp.StatusCode) + " " + string(body)
}

// TestPinholeUpdateKeeps: an update changes the lease and nothing else, of what
// PCP asked for too.
func TestPinholeUpdateKeeps(t *testing.T) {
	t.Parallel()
	l := start(t)
	c := sixA.client
	c.Via = portmap.ViaPCP
	made, err := l.engine.Map(t.Context(), portmap.Request{
		Kind: portmap.Pinhole6, Client: c, Transport: portmap.UDP, Internal: addrPort(sixA, 5000), Lifetime: time.Hour,
		Description: "of PCP", Nonce: &portmap.Nonce{1},
		Remotes: []portmap.Remote{{Prefix: prefix("2001:db8:9::/64")}, {Prefix: prefix("2001:db8:a::1/128"), Port: 53}},
	})
	if err != nil {
		t.Fatal(err)
	}
	number := strconv.Itoa(int(made.Number))
	wantCode(t, l.call(sixA, six1, "UpdatePinhole", "UniqueID", number, "NewLeaseTime", "7200"), 0)
	got := l.numbered(t, number)
	wantLeft(t, got, 2*time.Hour)
	want := made
	want.Expires, want.Claims = got.Expires, made.Claims.With(portmap.ViaUPnP)
	if got.String() != want.String() || got.ID != want.ID || got.Description != want.Description ||
		got.Nonce != want.Nonce || got.Claims != want.Claims || got.Disabled {
		t.Errorf("updated:\n%+v, want\n%+v", got, want)
	}
	if len(l.table()) != 1 {
		t.Errorf("table %q", l.table())
	}

	// AddPinhole says nothing of a description, so it does not take one away.
	plain := portmap.Request{
		Kind: portmap.Pinhole6, Client: c, Transport: portmap.TCP, Internal: addrPort(sixA, 8443), Lifetime: time.Hour, Description: "kept",
	}
	if _, err := l.engine.Map(t.Context(), plain); err != nil {
		t.Fatal(err)
	}
	if m := l.numbered(t, l.open(t, sixA)); m.Description != "kept" {
		t.Errorf("description %q", m.Description)
	}
}

// successor is a gate whose pinholes end just before they are renewed.
type successor struct {
	portmap.Reader
	unmaps  chan portmap.Selector
	already error
}

func (s successor) Map(_ context.Context, r portmap.Request) (portmap.Mapping, error) {
	return portmap.Mapping{ID: 77, Kind: r.Kind, Client: r.Client, Transport: r.Transport, Internal: r.Internal, Number: 78}, nil
}

func (s successor) Unmap(_ context.Context, sel portmap.Selector) ([]portmap.Mapping, error) {
	s.unmaps <- sel
	return nil, s.already
}

// standing is the Reader of a table with pinholes, numbered from 7 on.
func standing(t testing.TB, hosts ...host) portmap.Reader {
	t.Helper()
	table := portmap.NewTable()
	for i, h := range hosts {
		c := h.client
		c.Via = portmap.ViaUPnP
		r := portmap.Request{Kind: portmap.Pinhole6, Client: c, Transport: portmap.TCP, Internal: addrPort(h, 8443)}
		change, err := table.Plan(time.Now(), r, portmap.Decision{Action: portmap.Allow}, time.Hour, uint16(7+i))
		if err != nil {
			t.Fatal(err)
		}
		table = table.Commit(change)
	}
	return portmap.Reader{Now: func() *portmap.Table { return table }}
}

// TestPinholeUpdateTooLate: nothing stays open under a number that the client
// was not told.
func TestPinholeUpdateTooLate(t *testing.T) {
	t.Parallel()
	for code, err := range map[int]error{704: nil, 501: &portmap.Error{Reason: portmap.FirewallFailed}} {
		gate := successor{Reader: standing(t, sixA), unmaps: make(chan portmap.Selector, 1), already: err}
		l := &lan{t: t, wan: goodWAN()}
		l.serve(config(gate, l.wan))
		wantCode(t, l.call(sixA, six1, "UpdatePinhole", "UniqueID", "7", "NewLeaseTime", "60"), code)
		select {
		case s := <-gate.unmaps:
			if s.ID != 77 || s.Client.ID() != sixA.client.ID() || s.Client.Via != portmap.ViaUPnP {
				t.Errorf("removed %+v", s)
			}
		default:
			t.Error("what was made instead stays")
		}
	}
}

func TestPinholePackets(t *testing.T) {
	t.Parallel()
	l := start(t)
	number := l.open(t, sixA)
	id := l.numbered(t, number).ID
	wantCode(t, l.call(sixA, six1, "CheckPinholeWorking", "UniqueID", number), 709)
	for packets, want := range map[uint64]string{0: "0", 1: "1", 1<<32 - 1: "4294967295", 1 << 32: "0", 1<<32 + 5: "5"} {
		l.wan.pass(id, packets)
		if r := l.call(sixA, six1, "GetPinholePackets", "UniqueID", number); r.Out["PinholePackets"] != want {
			t.Errorf("%d packets: %q, code %d", packets, r.Out["PinholePackets"], r.Code)
		}
		r := l.call(sixA, six1, "CheckPinholeWorking", "UniqueID", number)
		if packets == 0 {
			wantCode(t, r, 709)
		} else if r.Out["IsWorking"] != "1" {
			t.Errorf("SOAP-53/%d packets: IsWorking %q, code %d", packets, r.Out["IsWorking"], r.Code)
		}
	}
	broken := l.open(t, sixA, "InternalPort", "9999")
	for _, action := range []string{"GetPinholePackets", "CheckPinholeWorking"} {
		if r := l.call(sixA, six1, action, "UniqueID", broken); r.Code != 501 || r.Description != "Action Failed" {
			t.Errorf("%s without a counter: %d %q", action, r.Code, r.Description)
		}
	}
}

func TestOutboundPinholeTimeout(t *testing.T) {
	t.Parallel()
	l := start(t)
	ask := func(pairs ...string) reply {
		return l.call(hostB, six1, "GetOutboundPinholeTimeout", with(pinhole(sixA)[:10], pairs...)...)
	}
	for protocol, want := range map[string]string{"6": "7440", "17": "180", "TCP": "7440", "udp": "180"} {
		if r := ask("Protocol", protocol); r.Out["OutboundPinholeTimeout"] != want {
			t.Errorf("protocol %s: %q, code %d", protocol, r.Out["OutboundPinholeTimeout"], r.Code)
		}
	}
	for _, wide := range [][]string{
		{"InternalClient", ""}, {"InternalPort", "0"}, {"RemoteHost", "2001:db8:9::1", "RemotePort", "443"}, {"RemoteHost", "*"},
	} {
		wantCode(t, ask(wide...), 0)
	}
	for _, protocol := range []string{"0", "1", "58", "65535"} {
		wantCode(t, ask("Protocol", protocol), 705)
	}
	for _, odd := range [][]string{{"InternalClient", "localhost"}, {"InternalClient", "192.168.1.50"}, {"RemoteHost", "evil.example"}, {"Protocol", "ICMP"}} {
		wantCode(t, ask(odd...), 402)
	}
}

func TestOutboundPinholeTimeoutFails(t *testing.T) {
	t.Parallel()
	l := &lan{t: t, wan: goodWAN()}
	cfg := config(refuser{Reader: empty}, l.wan)
	cfg.OutboundTimeout = func(portmap.Transport) (time.Duration, error) { return 0, errNobody }
	l.serve(cfg)
	r := l.call(hostB, six1, "GetOutboundPinholeTimeout", pinhole(sixA)[:10]...)
	if r.Code != 501 || r.Description != "Action Failed" {
		t.Errorf("%d %q", r.Code, r.Description)
	}
}

func TestFirewallStatus(t *testing.T) {
	t.Parallel()
	l := start(t)
	number := l.open(t, sixA)
	status := func(want string) {
		t.Helper()
		r := l.call(hostB, six1, "GetFirewallStatus")
		wantCode(t, r, 0)
		if got := r.Out["FirewallEnabled"] + " " + r.Out["InboundPinholeAllowed"]; got != want {
			t.Errorf("status %q, want %q", got, want)
		}
	}
	status("1 1")
	l.wan.setInbound(false)
	status("1 0")
	for action, args := range byNumber(number) {
		wantCode(t, l.call(sixA, six1, action, args...), 703)
	}
	wantCode(t, l.call(sixA, six1, "AddPinhole", pinhole(sixA, "InternalPort", "8444")...), 703)
	wantCode(t, l.call(sixA, six1, "GetOutboundPinholeTimeout", pinhole(sixA)[:10]...), 0)
	l.wantTable(t, "tcp [2001:db8::50]:8443")
	l.wan.setInbound(true)
	status("1 1")
	wantCode(t, l.call(sixA, six1, "DeletePinhole", "UniqueID", number), 0)
}
