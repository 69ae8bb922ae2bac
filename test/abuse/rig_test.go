// Package abuse plays the catalogue of abuse cases against the whole program on
// a network of namespaces: real packets, the real kernel. Names of tests carry
// the ids of the cases. Every refused case proves that nothing changed.
package abuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

func TestMain(m *testing.M) {
	code := testrig.Main(m)
	if ownableDir != "" {
		_ = os.RemoveAll(ownableDir)
	}
	os.Exit(code)
}

// rig is a network with a running daemon.
type rig struct{ *testrig.Rig }

// soon is how long a test waits for what must happen: the gate does it in a fraction
// of a second, but the machine may be busy.
const soon = 15 * time.Second

// noRates lets a test ask as often as it likes.
const noRates = "[limits]\ngrants_per_second = 0\nrequests_per_second = 0\n"

// start builds a network with hosts a and b, and starts the daemon with extra
// configuration. Everything ends with the test.
func start(t *testing.T, extra string) *rig {
	t.Helper()
	return startOn(t, testrig.Network(t, "a", "b"), extra)
}

func startOn(t *testing.T, n *lab.Network, extra string) *rig {
	t.Helper()
	return &rig{testrig.Start(t, n, extra)}
}

func (r *rig) v1(t *testing.T, host string) *lab.ControlPoint {
	return r.Point(t, host, lab.IGD1, lab.WANIP1)
}

func (r *rig) v2(t *testing.T, host string) *lab.ControlPoint {
	return r.Point(t, host, lab.IGD2, lab.WANIP2)
}

// ruleset is what the gateway's kernel holds for somebody.
func (r *rig) ruleset(t *testing.T) string {
	return testrig.Ruleset(t, r.Gateway)
}

// inhabit gives what is refused afterwards something to change: a mapping of host b with
// a flow through it, and a pinhole.
func (r *rig) inhabit(t *testing.T) {
	t.Helper()
	openFlow(t, r, "b", r.v1(t, "b"), 46001)
	if !r.HasIPv6() {
		return
	}
	pin := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: r.Host("b").Addr6, Protocol: "UDP", Internal: 46002, Lease: hour}
	if _, err := mapBy(t, r.Host("b"), pin); err != nil {
		t.Fatal(err)
	}
}

// hairpins reports whether a host connects to what inhabit has mapped, by the address
// outside.
func (r *rig) hairpins(t *testing.T, h *lab.Host, within time.Duration) bool {
	t.Helper()
	ctx, cancel := contextFor(t, within)
	defer cancel()
	conn, err := h.Dial(ctx, "tcp4", hostPort(lab.GatewayWAN, 46001))
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// code returns the number of a UPnP refusal, 0 for none, -1 for another error.
func code(err error) int {
	var refusal *lab.UPnPError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &refusal):
		return refusal.Code
	}
	return -1
}

// refused asks for what must be refused with the code, and proves for these cases that
// nothing changed.
func (r *rig) refused(t *testing.T, c *lab.ControlPoint, m lab.Mapping, want int, cases ...string) {
	t.Helper()
	before := r.World(t)
	if err := c.Add(t.Context(), m); code(err) != want {
		t.Errorf("answered %v, want %d", err, want)
	}
	r.Unchanged(t, before, cases...)
}

// raw sends one request from a host and gives the whole answer; an error is part
// of the answer.
func raw(t *testing.T, h *lab.Host, to string, request string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := h.Dial(ctx, "tcp4", to)
	if err != nil {
		return "dial: " + err.Error()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte(request)) // it may be refused before it is all sent
	var answer bytes.Buffer
	_, _ = answer.ReadFrom(conn)
	return answer.String()
}

// status cuts the status out of an HTTP answer; "" for silence.
func status(answer string) string {
	line, _, _ := strings.Cut(answer, "\r\n")
	if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "HTTP/") {
		return f[1]
	}
	return ""
}

// hears sends a datagram from a host that nobody should answer, and says whether a
// datagram comes back in the time that an answer needs.
func hears(t *testing.T, h *lab.Host, to netip.AddrPort, payload []byte) bool {
	t.Helper()
	conn, err := h.ListenPacket("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort(payload, to); err != nil {
		return false // the kernel has no route: nobody heard
	}
	if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _, err = conn.ReadFromUDPAddrPort(make([]byte, 2048))
	return err == nil
}

func search(target string) []byte {
	return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + target + "\r\n\r\n")
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func hostPort(a netip.Addr, port uint16) string {
	return net.JoinHostPort(a.String(), fmt.Sprint(port))
}

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
