package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
		if e := explained(t, r, "--client", p.InternalIP, "--port", fmt.Sprint(port), "--protocol", "udp", "--via", p.Via); e.Action != "ask" || e.Pending != p.ID || e.Rule != "" {
			t.Errorf("%s: it is explained as %+v", via, e)
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

// TestDenyAndRestart: what was said holds after the daemon was killed right after it had
// answered, and what is open by it stays; a no is told as one; and what was for one mapping ends
// with it.
func TestDenyAndRestart(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a", "b"), asking)
	a, b := r.Host("a"), r.Host("b")
	c, other := r.Point(t, "a", lab.IGD1, lab.WANIP1), askers(t, r, b, "b")["pcp"]
	ask := func(port uint16) error {
		return c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: port, Internal: port, Lease: time.Hour})
	}
	approve := func(h *lab.Host, ask asks, port uint16, args ...string) control.Approval {
		t.Helper()
		if err := ask(port); !isRefusal(err) {
			t.Fatalf("%d: %v", port, err)
		}
		p := waiting(t, r, h, port)
		return answered[control.Approval](t, r, append([]string{args[0], fmt.Sprint(p.ID)}, args[1:]...)...)
	}
	approve(a, ask, 6000, "approve")
	if err := ask(6000); err != nil {
		t.Fatal(err)
	}
	approve(a, ask, 6001, "approve", "--once")
	if err := ask(6001); err != nil {
		t.Fatal(err)
	}
	through := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6000), 6000)
	approve(b, other, 6002, "deny")
	if err := other(6002); !isRefusal(err) {
		t.Errorf("denied: %v", err)
	}
	last := approve(b, other, 6003, "approve", "--device")
	if err := r.Daemon.Kill(); err != nil { // right after the answer
		t.Fatal(err)
	}
	r.Restart(t)

	list := answered[[]control.Approval](t, r, "approvals")
	if len(list) != 4 || list[0].ID != last.ID || list[0].Protocol != "" || list[1].Decision != "deny" || !list[2].Once || !list[2].Used {
		t.Errorf("after the crash: %+v", list)
	}
	through.alive("after the crash")
	if len(r.List(t)) != 2 {
		t.Errorf("open are %+v", r.List(t))
	}
	if err := other(6004); err != nil {
		t.Errorf("another port of the device: %v", err)
	}
	if err := other(6002); !isRefusal(err) {
		t.Errorf("the port that is denied: %v", err)
	}
	testrig.Eventually(t, soon, "the refusal says why", func() bool {
		out, _ := said(t, "refused", "--config", r.Daemon.Config)
		return strings.Contains(out, "the owner has denied this when it was asked for")
	})
	if e := explained(t, r, "--client", b.Addr.String(), "--port", "6002", "--protocol", "udp", "--via", "pcp"); e.Reason != "owner-denied" || e.Wall {
		t.Errorf("it is explained as %+v", e)
	}
	if e := explained(t, r, "--client", a.Addr.String(), "--port", "6000", "--protocol", "tcp"); e.Action != "allow" || !strings.Contains(e.Why, "the owner has approved it") {
		t.Errorf("it is explained as %+v", e)
	}

	// Once is over with its mapping.
	if out, ok := said(t, "delete", "--config", r.Daemon.Config, "tcp", "6001"); !ok {
		t.Fatal(out)
	}
	if err := ask(6001); !isRefusal(err) {
		t.Errorf("once, and again: %v", err)
	}
	testrig.Eventually(t, soon, "once is forgotten", func() bool { return len(answered[[]control.Approval](t, r, "approvals")) == 3 })

	// Revoking closes what is open, with its flows; the rest stays.
	id := ""
	for _, a := range answered[[]control.Approval](t, r, "approvals") {
		if a.InternalPort == 6000 {
			id = fmt.Sprint(a.ID)
		}
	}
	out, ok := said(t, "revoke", "--config", r.Daemon.Config, id)
	if !ok || !strings.Contains(out, "closed 6000/tcp to "+a.Addr.String()+":6000") {
		t.Errorf("it says %s", out)
	}
	through.dead(t, "revoked")
	if list := r.List(t); len(list) != 1 || list[0].InternalPort != 6004 {
		t.Errorf("open are %+v", list)
	}
	if err := ask(6000); !isRefusal(err) {
		t.Errorf("revoked: %v", err)
	}
}

// TestApproveWalls: an approval, even of a whole device, opens nothing that a wall, a rule or Tier
// 1 closes, and a rule that asks about such a port by its name is answered; one for a time ends
// with that; a reload from "allow" to "ask" closes what nobody has approved, and back again opens
// it.
func TestApproveWalls(t *testing.T) {
	t.Parallel()
	const rules = "[[rule]]\nname = \"never\"\naction = \"deny\"\ninternal_ports = [\"7000\"]\n" +
		"[[rule]]\nname = \"web\"\naction = \"ask\"\ninternal_ports = [\"8080\"]\n"
	r := testrig.Start(t, testrig.Network(t, "a"), rules)
	a := r.Host("a")
	base, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	c := opened(t, r, 6200)
	configure(t, r, base[:bytes.Index(base, []byte("[[rule]]"))], asking+rules)
	if done := reloaded(t, r); len(done.Revoked) != 1 || done.Revoked[0].Reason != "needs-approval" {
		t.Errorf("it revoked %+v", done.Revoked)
	}
	tcp := func(port uint16) error {
		return c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: port, Internal: port, Lease: time.Hour})
	}
	if err := tcp(6000); !isRefusal(err) {
		t.Fatal(err)
	}
	p := waiting(t, r, a, 6000)
	answered[control.Approval](t, r, "approve", fmt.Sprint(p.ID), "--device", "--for", "1h")
	for port, open := range map[uint16]bool{6000: true, 6001: true, 7000: false, 8080: true, 22: false, 445: false} {
		if err := tcp(port); (err == nil) != open {
			t.Errorf("%d: %v", port, err)
		}
	}
	for _, m := range r.List(t) {
		if m.ExpiresIn > 3600 {
			t.Errorf("%d lasts %d s", m.ExternalPort, m.ExpiresIn)
		}
	}
	before := r.World(t)
	if err := c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: 6100, Client: lab.GatewayLAN.String(), Internal: 6100, Lease: time.Hour}); err == nil {
		t.Error("a port of the gateway is open")
	}
	r.Unchanged(t, before)

	// A short one is over, by itself.
	answered[control.Approval](t, r, "approve", fmt.Sprint(p.ID), "--for", "2s")
	testrig.Eventually(t, soon, "it is over", func() bool { return len(r.List(t)) == 0 })
	if err := tcp(6001); !isRefusal(err) {
		t.Errorf("over: %v", err)
	}
	testrig.Eventually(t, soon, "it is listed no more", func() bool { return len(answered[[]control.Approval](t, r, "approvals")) == 0 })

	for _, wrong := range [][]string{{"approve", "1"}, {"approve", "x"}, {"approve"}, {"deny", "1"}, {"revoke", "1"}, {"approve", fmt.Sprint(p.ID), "--once", "--device"}, {"approve", "1", "--for", "never"}} {
		if out, ok := said(t, append(wrong, "--config", r.Daemon.Config)...); ok || out == "" {
			t.Errorf("%v: %s", wrong, out)
		}
	}
	if s, err := r.Owner.Status(t.Context()); err != nil || s.Pending == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if out, ok := said(t, "status", "--config", r.Daemon.Config); !ok || !strings.Contains(out, "for you (portcullis pending)") {
		t.Errorf("the status says\n%s", out)
	}
	configure(t, r, base, "")
	reloaded(t, r)
	for _, p := range answered[[]control.Pending](t, r, "pending") {
		if p.InternalPort != 8080 { // of which a rule of base still asks
			t.Errorf("port %d waits, and nobody is asked about it any more", p.InternalPort)
		}
	}
	if err := tcp(6001); err != nil {
		t.Errorf("allowed again: %v", err)
	}
}

// TestApproveFullDisk: what cannot be stored is not approved, and says so; when there is room
// again, it is.
func TestApproveFullDisk(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	state := t.TempDir()
	if err := unix.Mount("none", state, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	settings := strings.Replace(lab.Settings, `"%[1]s/state"`, strconv.Quote(state), 1) + asking
	r := testrig.StartWith(t, n, settings)
	a := r.Host("a")
	ask := askers(t, r, a, "a")["pcp6"]
	if err := ask(6000); !isRefusal(err) {
		t.Fatal(err)
	}
	p := waiting(t, r, a, 6000)
	ballast := filepath.Join(state, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out, ok := said(t, "approve", "--config", r.Daemon.Config, fmt.Sprint(p.ID))
	if ok || !strings.Contains(out, "this cannot be stored, and nothing has changed: ") || !strings.Contains(out, "no space left on device") {
		t.Errorf("it says %s", out)
	}
	if err := ask(6000); !isRefusal(err) {
		t.Errorf("not stored, and open: %v", err)
	}
	if list := answered[[]control.Approval](t, r, "approvals"); len(list) != 0 {
		t.Errorf("approved is %+v", list)
	}
	if now := waiting(t, r, a, 6000); now.ID != p.ID {
		t.Errorf("it waits as %d, and did as %d", now.ID, p.ID)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	answered[control.Approval](t, r, "approve", fmt.Sprint(p.ID))
	if err := ask(6000); err != nil {
		t.Error(err)
	}

	// A file that makes no sense approves nothing.
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(state, "approvals.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte("6000"), []byte("6001"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	r.Logged(t, "the approvals are damaged")
	if list := r.List(t); len(list) != 0 {
		t.Errorf("open are %+v", list)
	}
	if err := ask(6001); !isRefusal(err) {
		t.Error(err)
	}
	if kept, err := os.ReadFile(file + ".damaged"); err != nil || !bytes.Contains(kept, []byte("6001")) {
		t.Errorf("%s, %v", kept, err)
	}
}

// TestPendingFlood: a device that asks for ten thousand ports takes the place of nobody else's
// request, and the daemon's memory does not grow with it.
func TestPendingFlood(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a", "b"), asking+"[limits]\nrequests_per_second = 0\n")
	if err := askers(t, r, r.Host("a"), "a")["natpmp"](3074); !isRefusal(err) {
		t.Fatal(err)
	}
	p := waiting(t, r, r.Host("a"), 3074)
	b := r.Host("b")
	conn, err := b.ListenPacket(netip.AddrPortFrom(b.Addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(lab.GatewayLAN, 5351))
	before := resident(t, r)
	answers := 0
	for port := range 10_000 {
		if port == 500 {
			before = resident(t, r)
		}
		request := binary.BigEndian.AppendUint16([]byte{0, 1, 0, 0}, uint16(20_000+port)) // #nosec G115 -- below 65536
		request = append(request, 0, 0, 0, 0, 14, 16)
		if _, err := conn.WriteTo(request, to); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if n, _, err := conn.ReadFrom(make([]byte, 64)); err == nil && n > 3 {
			answers++
		}
	}
	if answers < 9000 {
		t.Errorf("%d of 10,000 were answered: this proves little", answers)
	}
	list := answered[[]control.Pending](t, r, "pending")
	if len(list) != 9 || !slices.ContainsFunc(list, func(q control.Pending) bool { return q.ID == p.ID }) {
		t.Errorf("%d wait: %+v", len(list), list)
	}
	if after := resident(t, r); after > before+8<<20 {
		t.Errorf("it had %d octets, and has %d", before, after)
	}
}

// resident returns how much memory the process has that decides, in octets.
func resident(t *testing.T, r *testrig.Rig) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.Daemon.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
