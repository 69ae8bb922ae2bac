package igd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

// refuser is a gate that always says the same.
type refuser struct {
	err  error
	asks chan portmap.Request // may be nil
	portmap.Reader
}

func (r refuser) Map(_ context.Context, req portmap.Request) (portmap.Mapping, error) {
	if r.asks != nil {
		r.asks <- req
	}
	return portmap.Mapping{}, r.err
}

func (r refuser) Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error) {
	return nil, r.err
}

// wantCodes is what each Reason becomes: under version 1, under version 2, and
// whether the sentence is told.
var wantCodes = map[portmap.Reason]struct {
	v1, v2 int
	told   bool
}{
	portmap.NotRequester: {606, 606, true}, portmap.NotAHost: {402, 402, true}, portmap.GatewayTarget: {606, 606, true},
	portmap.OffLink: {606, 606, true}, portmap.BadTransport: {402, 601, true}, portmap.BadPort: {402, 402, true},
	portmap.ForbiddenPort: {606, 606, true}, portmap.PrivilegedPort: {606, 606, true}, portmap.BadRemote: {402, 402, true},
	portmap.IdentityChanged: {718, 718, true}, portmap.NotOwner: {714, 606, false},
	portmap.RuleDenied: {606, 606, true}, portmap.DefaultDenied: {606, 606, true}, portmap.NeedsApproval: {606, 606, true}, portmap.OwnerDenied: {606, 606, true},
	portmap.ClientQuota: {501, 728, true}, portmap.TotalQuota: {501, 728, true}, portmap.GrantRate: {501, 728, true},
	portmap.PortTaken: {718, 718, true}, portmap.PortReserved: {718, 718, true}, portmap.PortInUse: {718, 729, false},
	portmap.NoPorts: {501, 728, true}, portmap.NoAddress: {501, 501, true}, portmap.PrivateAddress: {501, 501, true}, portmap.UniqueLocal: {606, 606, true}, portmap.AskedElsewhere: {606, 606, true},
	portmap.WrongNonce: {606, 606, false}, portmap.TooManyRemotes: {501, 501, true},
	portmap.NoSuchMapping: {714, 714, false}, portmap.FirewallFailed: {501, 501, false}, portmap.Busy: {501, 501, true},
	portmap.Ended: {501, 501, false}, portmap.Removed: {501, 501, false}, portmap.Revoked: {501, 501, false},
}

func TestReasons(t *testing.T) {
	t.Parallel()
	names := map[int]string{
		402: "Invalid Args", 501: "Action Failed", 601: "Argument Value Out of Range", 606: "Action not authorized",
		714: "NoSuchEntryInArray", 718: "ConflictInMappingEntry", 728: "NoPortMapsAvailable", 729: "ConflictWithOtherMechanisms",
	}
	for _, reason := range portmap.Reasons() {
		want, listed := wantCodes[reason]
		if !listed {
			t.Errorf("%v has no code: decide one", reason)
			continue
		}
		l := &lan{t: t, wan: goodWAN()}
		l.serve(config(refuser{Reader: empty, err: fmt.Errorf("engine: %w", &portmap.Error{
			Reason: reason, Detail: "because of the sentence", Err: errors.New("inner secret"),
		})}, l.wan))
		for service, code := range map[string]int{ip1: want.v1, ip2: want.v2, ppp1: want.v1} {
			for action, args := range map[string][]string{"AddPortMapping": mapping(hostA), "DeletePortMapping": key("6000", "UDP")} {
				r := l.call(hostA, service, action, args...)
				text := names[code]
				if want.told {
					text += ": because of the sentence"
				}
				if r.Code != code || r.Description != text {
					t.Errorf("%v, %s %s: %d %q, want %d %q", reason, service, action, r.Code, r.Description, code, text)
				}
			}
		}
	}
	for _, err := range []error{context.DeadlineExceeded, errors.New("odd"), &portmap.Error{Reason: 250}} {
		l := &lan{t: t, wan: goodWAN()}
		l.serve(config(refuser{Reader: empty, err: err}, l.wan))
		r := l.call(hostA, ip2, "AddPortMapping", mapping(hostA)...)
		if r.Code != 501 || r.Description != "Action Failed" {
			t.Errorf("%v: %d %q", err, r.Code, r.Description)
		}
	}
	l := &lan{t: t, wan: goodWAN()}
	l.serve(config(refuser{Reader: empty, err: &portmap.Error{Reason: portmap.RuleDenied, Detail: strings.Repeat("ö", 500)}}, l.wan))
	r := l.call(hostA, ip2, "AddPortMapping", mapping(hostA)...)
	if want := "Action not authorized: " + strings.Repeat("ö", 100); r.Description != want {
		t.Errorf("long sentence: %q", r.Description)
	}
}

// wantPinholeCodes is the same for WANIPv6FirewallControl.
var wantPinholeCodes = map[portmap.Reason]struct {
	code int
	told bool
}{
	portmap.NotRequester: {606, true}, portmap.NotAHost: {606, true}, portmap.GatewayTarget: {606, true}, portmap.OffLink: {606, true},
	portmap.BadTransport: {705, true}, portmap.BadPort: {706, true}, portmap.BadRemote: {402, true},
	portmap.ForbiddenPort: {606, true}, portmap.PrivilegedPort: {606, true}, portmap.IdentityChanged: {606, true}, portmap.NotOwner: {704, false},
	portmap.RuleDenied: {606, true}, portmap.DefaultDenied: {606, true}, portmap.NeedsApproval: {606, true}, portmap.OwnerDenied: {606, true},
	portmap.ClientQuota: {701, true}, portmap.TotalQuota: {701, true}, portmap.GrantRate: {701, true}, portmap.NoPorts: {701, true},
	portmap.PortTaken: {501, true}, portmap.PortReserved: {501, true}, portmap.PortInUse: {501, false},
	portmap.NoAddress: {703, true}, portmap.PrivateAddress: {703, true}, portmap.UniqueLocal: {606, true}, portmap.AskedElsewhere: {606, true},
	portmap.WrongNonce: {606, false}, portmap.TooManyRemotes: {501, true},
	portmap.NoSuchMapping: {704, false}, portmap.FirewallFailed: {501, false}, portmap.Busy: {501, true},
	portmap.Ended: {501, false}, portmap.Removed: {501, false}, portmap.Revoked: {501, false},
}

func TestPinholeReasons(t *testing.T) {
	t.Parallel()
	names := map[int]string{
		402: "Invalid Args", 501: "Action Failed", 606: "Action not authorized", 701: "PinholeSpaceExhausted",
		703: "InboundPinholeNotAllowed", 704: "NoSuchEntry", 705: "ProtocolNotSupported", 706: "InternalPortWildcardingNotAllowed",
	}
	table := standing(t, sixA)
	for _, reason := range portmap.Reasons() {
		want, listed := wantPinholeCodes[reason]
		if !listed {
			t.Errorf("%v has no code: decide one", reason)
			continue
		}
		l := &lan{t: t, wan: goodWAN()}
		l.serve(config(refuser{Reader: table, err: fmt.Errorf("engine: %w", &portmap.Error{
			Reason: reason, Detail: "because of the sentence", Err: errors.New("inner secret"),
		})}, l.wan))
		for action, args := range map[string][]string{
			"AddPinhole": pinhole(sixA), "UpdatePinhole": {"UniqueID", "7", "NewLeaseTime", "60"}, "DeletePinhole": {"UniqueID", "7"},
		} {
			r := l.call(sixA, six1, action, args...)
			text := names[want.code]
			if want.told {
				text += ": because of the sentence"
			}
			if r.Code != want.code || r.Description != text {
				t.Errorf("%v, %s: %d %q, want %d %q", reason, action, r.Code, r.Description, want.code, text)
			}
		}
	}
}

// TestRequest looks at what reaches the gate.
func TestRequest(t *testing.T) {
	t.Parallel()
	asks := make(chan portmap.Request, 1)
	l := &lan{t: t, wan: goodWAN()}
	l.serve(config(refuser{Reader: empty, err: &portmap.Error{Reason: portmap.Busy}, asks: asks}, l.wan))
	base := portmap.Request{
		ZeroIsEndless: true,
		Client:        hostA.client, Transport: portmap.UDP, Internal: addrPort(hostA, 6000), ExternalPort: 6000,
		Lifetime: time.Hour, Exact: true, Description: "game",
	}
	base.Client.Via = portmap.ViaUPnP
	for id, c := range map[string]struct {
		action string
		change []string
		want   func(*portmap.Request)
	}{
		"as it is":    {"AddPortMapping", nil, func(*portmap.Request) {}},
		"any port":    {"AddAnyPortMapping", nil, func(r *portmap.Request) { r.Exact = false }},
		"any port, 0": {"AddAnyPortMapping", []string{"NewExternalPort", "0"}, func(r *portmap.Request) { r.Exact, r.ExternalPort = false, 0 }},
		"any port, *": {"AddAnyPortMapping", []string{"NewExternalPort", "*"}, func(r *portmap.Request) { r.Exact, r.ExternalPort = false, 0 }},
		"C10/lease 0": {"AddPortMapping", []string{"NewLeaseDuration", "0"}, func(r *portmap.Request) { r.Lifetime = 0 }},
		"C10/lease 2^32-1": {"AddPortMapping", []string{"NewLeaseDuration", "4294967295"}, func(r *portmap.Request) {
			r.Lifetime = 4294967295 * time.Second
		}},
		"disabled": {"AddPortMapping", []string{"NewEnabled", "0"}, func(r *portmap.Request) { r.Disabled = true }},
		"another host": {"AddPortMapping", []string{"NewInternalClient", "192.168.1.60"}, func(r *portmap.Request) {
			r.Internal = addrPort(hostB, 6000)
		}},
		"remote": {"AddPortMapping", []string{"NewRemoteHost", "198.51.100.9"}, func(r *portmap.Request) {
			r.Remotes = []portmap.Remote{{Prefix: prefix("198.51.100.9/32")}}
		}},
	} {
		t.Run(id, func(t *testing.T) {
			want := base
			c.want(&want)
			wantCode(t, l.call(hostA, ip2, c.action, mapping(hostA, c.change...)...), 501)
			if diff := cmp.Diff(want, <-asks, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}
