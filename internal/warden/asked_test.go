package warden

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// TestAsks: a request is one of the host that the kernel knows at its address, and of a
// machine that has sent lately; the owner hears of any other.
func TestAsks(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	mac := func(lan, addr string) portmap.MAC {
		s, known, err := h.kernel.Sight(h.LANs()[lan].Index, netip.MustParseAddr(addr))
		if err != nil || !known {
			t.Fatal(addr, known, err)
		}
		return s.MAC
	}
	host, other := mac("lan0", "192.168.77.10"), mac("lan1", "10.0.0.10")
	lan0 := h.LANs()["lan0"].Index
	h.silent = func(_ context.Context, on int, mac [6]byte, _ netip.Addr) (bool, error) {
		return on != lan0 || mac != host, nil
	}
	for name, c := range map[string]struct {
		lan, addr string
		mac       portmap.MAC
		want      portmap.Reason
		told      bool
	}{
		"a host that has sent":                    {"lan0", "192.168.77.10", host, portmap.NoReason, false},
		"another address of it":                   {"lan0", "192.168.77.11", host, portmap.NoReason, false},
		"its address of IPv6":                     {"lan0", "2001:db8:77::10", host, portmap.NoReason, false},
		"a host that has not sent":                {"lan1", "10.0.0.10", other, portmap.NotRequester, true},
		"its address by the MAC of one that has":  {"lan1", "10.0.0.10", host, portmap.NotRequester, true},
		"its address by no MAC":                   {"lan1", "10.0.0.10", portmap.MAC{}, portmap.NotRequester, true},
		"an invented MAC":                         {"lan0", "192.168.77.10", portmap.MAC{2, 7}, portmap.NotRequester, true},
		"a host that is not there":                {"lan0", "192.168.77.99", host, portmap.Busy, false},
		"behind a router that has not sent":       {"lan1", "10.9.0.7", portmap.MAC{}, portmap.NotRequester, true},
		"behind it, with a MAC":                   {"lan1", "10.9.0.7", host, portmap.NotRequester, true},
		"of a network to which another way leads": {"lan1", "10.9.1.7", portmap.MAC{}, portmap.OffLink, false},
		"of the network of another LAN":           {"lan0", "10.9.0.7", portmap.MAC{}, portmap.OffLink, false},
		"the policy refuses: not on the link":     {"lan0", "203.0.113.9", host, portmap.NoReason, false},
		"the policy refuses: a LAN that is not":   {"wan0", "203.0.113.9", host, portmap.NoReason, false},
		"the policy refuses: the gateway itself":  {"lan0", "192.168.77.1", portmap.MAC{}, portmap.NoReason, false},
	} {
		h.alerts = alerts{}
		h.log.Reset()
		client := portmap.Client{Addr: netip.MustParseAddr(c.addr), MAC: c.mac, Interface: c.lan, Unheard: true}
		err := h.asks(t.Context(), &client)
		if portmap.ReasonOf(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if told := strings.Contains(h.log.String(), "request refused that its host has not made"); told != c.told {
			t.Errorf("%s: the log has %q", name, &h.log)
		}
		if c.want == portmap.NoReason && !strings.HasPrefix(name, "the policy refuses") && client.Unheard {
			t.Errorf("%s: it has answered the kernel", name)
		}
	}
}

// TestAsksWithoutWitness: where nobody sees who sends, a host must be there by its MAC
// address all the same; a kernel that fails to answer refuses nobody, and the end of the
// front's patience refuses.
func TestAsksWithoutWitness(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	at := netip.MustParseAddr("192.168.77.10")
	seen, _, err := h.kernel.Sight(h.LANs()["lan0"].Index, at)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context, mac portmap.MAC) error {
		return h.asks(ctx, &portmap.Client{Addr: at, MAC: mac, Interface: "lan0"})
	}
	if err := ask(t.Context(), seen.MAC); err != nil {
		t.Error(err)
	}
	if err := ask(t.Context(), portmap.MAC{2}); portmap.ReasonOf(err) != portmap.NotRequester {
		t.Error(err)
	}
	broken := errors.New("broken")
	h.silent = func(context.Context, int, [6]byte, netip.Addr) (bool, error) { return false, broken }
	if err := ask(t.Context(), seen.MAC); err != nil || !strings.Contains(h.log.String(), "cannot be checked") {
		t.Errorf("%v; the log has %q", err, &h.log)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ask(over, seen.MAC); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	broken = os.ErrDeadlineExceeded
	if err := ask(t.Context(), seen.MAC); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestAlerts: an owned front does not fill the log.
func TestAlerts(t *testing.T) {
	t.Parallel()
	var a alerts
	said, leftOut := 0, 0
	for range 1000 {
		a.say(func(n int) { said, leftOut = said+1, leftOut+n })
	}
	if said != alertBurst || leftOut != 0 {
		t.Errorf("%d lines, %d left out", said, leftOut)
	}
}

// TestSubscribers: F1. Whoever owns the front gets no connection to a host that has asked
// for nothing; one that has goes on to get events when it is quiet.
func TestSubscribers(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	silent := true
	h.silent = func(context.Context, int, [6]byte, netip.Addr) (bool, error) { return silent, nil }
	h.host.Listen("192.168.77.10:49152")
	dial := func() error {
		conn, err := h.connect(t.Context(), "lan0", "192.168.77.1", "192.168.77.10:49152")
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if err := dial(); portmap.ReasonOf(err) != portmap.NotRequester {
		t.Errorf("to a host that has not asked: %v", err)
	}
	silent = false
	if err := dial(); err != nil {
		t.Error(err)
	}
	silent = true
	if err := dial(); err != nil {
		t.Errorf("to a subscriber that is quiet: %v", err)
	}
	var s subscribers
	for i := range 3 * maxSubscribers {
		s.note(subscriber{"lan0", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
	}
	if len(s.all) != maxSubscribers {
		t.Errorf("%d are remembered", len(s.all))
	}
}

// TestAsksInVRF: the kernel may have seen what comes in by a member of a VRF as the VRF's, so
// nothing is certain there.
func TestAsksInVRF(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	at := netip.MustParseAddr("192.168.77.10")
	seen, _, err := h.kernel.Sight(h.LANs()["lan0"].Index, at)
	if err != nil {
		t.Fatal(err)
	}
	h.silent = func(context.Context, int, [6]byte, netip.Addr) (bool, error) { return true, nil }
	for _, inVRF := range []bool{false, true} {
		roles := h.network.Roles()
		roles.LAN = slices.Clone(roles.LAN)
		for i := range roles.LAN {
			roles.LAN[i].InVRF = inVRF
		}
		h.Learn(netif.State{}, roles)
		if err := h.asks(t.Context(), &portmap.Client{Addr: at, MAC: seen.MAC, Interface: "lan0"}); (err == nil) != inVRF {
			t.Errorf("in a VRF: %v; %v", inVRF, err)
		}
	}
}

// TestByNow: of what the owner's limits or answers refused it is said that it would be opened by
// now, once it would, and nobody waits for it; of what stood in another's way it is not.
func TestByNow(t *testing.T) {
	t.Parallel()
	w, _ := newWarden(t, new(bytes.Buffer)) // its policy allows everything
	client := portmap.Client{Addr: netip.MustParseAddr("192.168.1.11"), MAC: portmap.MAC{2, 1}, Interface: "lan0", Via: portmap.ViaUPnP}
	ev := portmap.Event{Time: time.Now(), Type: portmap.Denied, Client: client, Mapping: portmap.Mapping{
		Client: client, Kind: portmap.NAT4, Transport: portmap.UDP, Internal: netip.AddrPortFrom(client.Addr, 7000), ExternalPort: 7000,
	}}
	for _, ev.Reason = range []portmap.Reason{portmap.ClientQuota, portmap.TotalQuota, portmap.GrantRate, portmap.OwnerDenied, portmap.PortTaken} {
		w.refusals.Add(ev)
	}
	for _, r := range w.refused(t.Context())[0].Refused {
		if now := r.AllowedBy != ""; now != (r.Reason != "port-taken") {
			t.Errorf("%s: would be opened by now: %v", r.Reason, now)
		}
	}
	ev.Type, ev.Reason = portmap.Pending, portmap.NeedsApproval
	if id, _ := w.approvals.Announce(&ev, func() bool { return true }); id == 0 {
		t.Fatal("it does not wait")
	}
	w.approvals.Reconsider(func(r portmap.Request) bool { return w.stillAsks(t.Context(), r) })
	if n := w.approvals.Count(); n != 0 {
		t.Errorf("%d wait for what is allowed", n)
	}
}
