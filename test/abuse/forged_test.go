package abuse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/config"
	"portcullis/internal/lab"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/internal/warden"
	"portcullis/internal/wiring"
	"portcullis/portmap"
	testrig "portcullis/test/rig"
)

// wardenConfig names the configuration of the warden that a process of this test is to be.
const wardenConfig = "PORTCULLIS_TEST_WARDEN"

// forger is a front that somebody owns, before a warden of its own process.
type forger struct {
	in     io.Writer
	out    *bufio.Scanner
	stderr *strings.Builder
}

func newForger(t *testing.T, n *lab.Network) *forger {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "portcullis.toml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(lab.Settings, "%[1]s", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestForgedFront$")
	cmd.Env = append(os.Environ(), wardenConfig+"="+file, "PORTCULLIS="+testrig.Exe)
	f := &forger{stderr: new(strings.Builder)}
	cmd.Stderr = f.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Gateway.Start(cmd); err != nil {
		t.Fatal(err)
	}
	f.in, f.out = in, bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = in.Close() // by which it ends
		if err := cmd.Wait(); err != nil {
			t.Errorf("the warden ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the warden's log:\n%s", f.stderr)
		}
	})
	if f.out.Scan(); f.out.Text() != "ready" {
		t.Fatalf("the warden says %q", f.out.Text())
	}
	return f
}

// say sends what an owned front would, and returns what the warden answers.
func (f *forger) say(t *testing.T, what, to, as string) string {
	t.Helper()
	if _, err := fmt.Fprintln(f.in, what, to, as); err != nil {
		t.Fatal(err)
	}
	f.out.Scan()
	return f.out.Text()
}

// until says it until the answer is the one that is wanted.
func (f *forger) until(t *testing.T, want, what, to, as string) {
	t.Helper()
	got := ""
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(time.Minute); got != want; {
		select {
		case <-tick.C:
			got = f.say(t, what, to, as)
		case <-late:
			t.Fatalf("%s %s %s: %s, want %s", what, to, as, got, want)
		}
	}
}

// playWarden is the half that decides, with the real kernel, and does what lines say.
func playWarden(ctx context.Context, file string, in io.Reader, out io.Writer) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	kernel, err := netif.Open(log)
	if err != nil {
		return err
	}
	defer kernel.Close()
	state, err := kernel.Read(ctx)
	if err != nil {
		return err
	}
	roles, err := netif.Choose(state, wiring.Network(c))
	if err != nil {
		return err
	}
	w, err := warden.Open(ctx, warden.Config{Config: c, Log: log, Kernel: kernel})
	if err != nil {
		return err
	}
	w.Learn(state, roles)
	if _, _, err := w.Begin(ctx); err != nil {
		return errors.Join(err, w.Close(ctx, false))
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- w.Run(running) }()
	go func() { ended <- w.Serve(running) }()
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var what, to, as string
		if _, err := fmt.Sscan(lines.Text(), &what, &to, &as); err != nil {
			return err
		}
		fmt.Fprintln(out, obey(ctx, w, what, to, as))
	}
	stop()
	_, _ = <-ended, <-ended
	return w.Close(ctx, false)
}

// obey has the warden do what a front asks of it.
func obey(ctx context.Context, w *warden.Warden, what, to, as string) string {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	if what == "dial" {
		conn, err := w.Dial(ctx, "br-lan", netip.MustParseAddr(as), netip.MustParseAddrPort(to))
		if err == nil {
			_ = conn.Close()
			return "connected"
		}
		return portmap.ReasonOf(err).String()
	}
	addr := netip.MustParseAddr(to)
	var mac portmap.MAC
	if _, err := fmt.Sscanf(as, "%02x:%02x:%02x:%02x:%02x:%02x", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]); err != nil {
		return err.Error()
	}
	_ = w.Resolve("br-lan", addr) // of a host: the others are refused
	_, err := w.Map(ctx, portmap.Request{
		Client:    portmap.Client{Addr: addr, MAC: mac, Interface: "br-lan", Via: portmap.ViaUPnP},
		Transport: portmap.UDP, Internal: netip.AddrPortFrom(addr, 46000), ExternalPort: 46000 + uint16(mac[5]), Lifetime: time.Hour,
	})
	if err == nil {
		return "granted"
	}
	return portmap.ReasonOf(err).String()
}

// TestForgedFront: B1, F1. Whoever owns the half that reads requests says who asks, and is
// not believed: a mapping, and a connection, is for a host of which the kernel has seen a
// frame to a port of ours in the last seconds, by the machine that has the address.
func TestForgedFront(t *testing.T) {
	if file := os.Getenv(wardenConfig); file != "" {
		if err := playWarden(t.Context(), file, os.Stdin, os.Stdout); err != nil {
			t.Fatal(err)
		}
		os.Exit(0) // a test prints a word at its end
	}
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	front := newForger(t, n)
	a, b := n.Host("a"), n.Host("b")
	// What was sent before the rules were there nobody knows: for a while all are believed.
	for _, h := range []*lab.Host{a, b} {
		front.until(t, "not-requester", "map", h.Addr.String(), h.MAC.String())
	}
	refuse := func(when string, all map[string][2]string) {
		t.Helper()
		for name, c := range all {
			if got := front.say(t, "map", c[0], c[1]); !strings.Contains(name, got) {
				t.Errorf("%s, %s: %s", when, name, got)
			}
		}
	}
	refuse("while all are silent", map[string][2]string{
		"not-requester: a host":              {a.Addr.String(), a.MAC.String()},
		"not-requester: an invented machine": {a.Addr.String(), "02:66:66:66:66:66"},
		"not-requester: no machine":          {a.Addr.String(), "00:00:00:00:00:00"},
		"busy: a host that is not there":     {"192.168.77.99", a.MAC.String()},
		"gateway-target: the gateway":        {"192.168.77.1", "00:00:00:00:00:00"},
		"off-link: a host of the Internet":   {"203.0.113.9", a.MAC.String()},
		"not-a-host: everybody of the LAN":   {"192.168.77.255", a.MAC.String()},
	})
	dial := netip.AddrPortFrom(b.Addr, 49152).String()
	if got := front.say(t, "dial", dial, "192.168.77.1"); got != "not-requester" {
		t.Errorf("a connection to a silent host: %s", got)
	}
	for transport, send := range map[string]func(*lab.Host) error{
		"UDP": func(h *lab.Host) error {
			conn, err := h.Dial(t.Context(), "udp", "192.168.77.1:5351")
			if err == nil {
				_, err = conn.Write([]byte{0, 0})
				err = errors.Join(err, conn.Close())
			}
			return err
		},
		"TCP": func(h *lab.Host) error { // nobody listens there; but the packet has come
			if conn, err := h.Dial(t.Context(), "tcp", "192.168.77.1:5000"); err == nil {
				return errors.Join(errors.New("somebody listens"), conn.Close())
			}
			return nil
		},
	} {
		if err := send(a); err != nil {
			t.Fatal(err)
		}
		front.until(t, "granted", "map", a.Addr.String(), a.MAC.String()) // a datagram may be on its way
		refuse("after "+transport+" of a", map[string][2]string{
			"not-requester: b":                           {b.Addr.String(), b.MAC.String()},
			"not-requester: b by the machine of a":       {b.Addr.String(), a.MAC.String()},
			"not-requester: a by another machine than a": {a.Addr.String(), b.MAC.String()},
		})
		front.until(t, "not-requester", "map", a.Addr.String(), a.MAC.String())
	}
	if log := front.stderr.String(); strings.Count(log, "request refused that its host has not made") != 3 {
		t.Errorf("the owner reads\n%s", log)
	}
}
