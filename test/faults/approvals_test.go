package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

const asking = "[policy]\ndefault = \"ask\"\n"

// answered runs a command about approvals, and reads what it prints as JSON.
func answered[T any](t *testing.T, r *testrig.Rig, args ...string) (v T) {
	t.Helper()
	out, ok := said(t, append(args, "--json", "--config", r.Daemon.Config)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil || !ok {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return v
}

// waiting waits until a port of a host waits for the owner.
func waiting(t *testing.T, r *testrig.Rig, h *lab.Host, port uint16) (p control.Pending) {
	t.Helper()
	testrig.Eventually(t, soon, fmt.Sprintf("port %d waits", port), func() bool {
		for _, p = range answered[[]control.Pending](t, r, "pending") {
			if p.ClientMAC == h.MAC.String() && p.InternalPort == port {
				return true
			}
		}
		return false
	})
	return p
}

// asks asks for a port by one protocol, and returns whether it was given.
type asks func(port uint16) error

func askers(t *testing.T, r *testrig.Rig, h *lab.Host, name string) map[string]asks {
	t.Helper()
	point := r.Point(t, name, lab.IGD1, lab.WANIP1)
	return map[string]asks{
		"upnp": func(port uint16) error {
			return point.Add(t.Context(), lab.Mapping{Protocol: "UDP", External: port, Internal: port, Lease: time.Hour, Description: "a game"})
		},
		"natpmp": func(port uint16) error {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			_, err := h.MapNATPMP(ctx, "UDP", port, port, time.Hour)
			return err
		},
		"pcp": func(port uint16) error {
			_, err := mapPCP(t, h, lab.MapRequest{Gateway: lab.GatewayLAN, Source: h.Addr, Protocol: "UDP", Internal: port, Suggested: port, Lease: time.Hour})
			return err
		},
		"pcp6": func(port uint16) error {
			_, err := mapPCP(t, h, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: h.Addr6, Protocol: "UDP", Internal: port, Suggested: port, Lease: time.Hour})
			return err
		},
	}
}

// isRefusal reports whether the gateway said no, with the number that the protocol has for it.
func isRefusal(err error) bool {
	var no *lab.Refusal
	var fault *lab.UPnPError
	return errors.As(err, &no) && no.Code == 2 || errors.As(err, &fault) && fault.Code == 606
}

// TestApprove: what meets "ask" is refused for now, and waits for the owner, whichever protocol
// it came by; after his yes the client's next try opens the port, and a packet arrives; after he
// has taken it back the port is closed, with its flows.
func TestApprove(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), asking)
	a := r.Host("a")
	passes := func(via string, port uint16) bool {
		if via == "pcp6" {
			return r.Reaches(t, "UDP", lab.InternetOne6, netip.AddrPortFrom(a.Addr6, port), a, soon)
		}
		return r.Passes(t, "UDP", port, a, port)
	}
	port := uint16(3073)
	for via, ask := range askers(t, r, a, "a") {
		port++
		before := r.World(t)
		if err := ask(port); !isRefusal(err) {
			t.Fatalf("%s: it is not refused: %v", via, err)
		}
		p := waiting(t, r, a, port)
		r.Unchanged(t, before)
		if want := strings.TrimSuffix(via, "6"); p.Via != want || p.Protocol != "udp" || p.Rule != "" || p.Count == 0 || (p.Family == 6) != (via == "pcp6") {
			t.Errorf("%s: it waits as %+v", via, p)
		}
		made := answered[control.Approval](t, r, "approve", fmt.Sprint(p.ID))
		if made.Decision != "approve" || made.InternalPort != port || made.Protocol != "udp" || made.Until != nil || made.ClientMAC != a.MAC.String() {
			t.Errorf("%s: approved is %+v", via, made)
		}
		if err := ask(port); err != nil {
			t.Fatalf("%s: approved, and refused: %v", via, err)
		}
		if !passes(via, port) {
			t.Errorf("%s: no packet arrives", via)
		}
		if err := ask(port + 1000); !isRefusal(err) {
			t.Errorf("%s: another port: %v", via, err)
		}
		done := answered[control.Withdrawn](t, r, "revoke", fmt.Sprint(p.ID))
		if len(done.Closed) != 1 || done.Closed[0].InternalPort != port {
			t.Errorf("%s: it closed %+v", via, done.Closed)
		}
		if len(r.List(t)) != 0 {
			t.Errorf("%s: revoked, and still open", via)
		}
	}
}
