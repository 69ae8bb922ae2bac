// Package rig is what the tests of the whole program have in common: a network of
// namespaces, the program on its gateway, and its owner.
package rig

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	"portcullis/internal/netns"
)

// patience is how long a test waits for what must happen.
const patience = 15 * time.Second

// Exe is the program under test, while Main runs.
var Exe string

// Main runs the tests of a package with the program built, as root of a user
// namespace where this process is not root.
func Main(m *testing.M) int {
	if os.Geteuid() != 0 {
		code, err := netns.AsRoot(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}
	if Exe = os.Getenv("PORTCULLIS"); Exe != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "portcullis-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	Exe = filepath.Join(dir, "portcullis")
	build := exec.Command("go", "build", "-o", Exe, "portcullis/cmd/portcullis")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped: only so can it drop what every thread holds
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// Rig is a network with a running daemon.
type Rig struct {
	*lab.Network
	Daemon *lab.Daemon
	Owner  *control.Client
	exe    string // of the daemon; "": Exe
}

// Network builds a network whose gateway has a firewall of its own.
func Network(t testing.TB, hosts ...string) *lab.Network {
	t.Helper()
	n, err := lab.New(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	if err := n.HostFirewall(); err != nil {
		t.Fatal(err)
	}
	return n
}

// Start starts the daemon on the gateway of a network, with extra configuration.
// It ends with the test.
func Start(t testing.TB, n *lab.Network, extra string) *Rig {
	t.Helper()
	return StartWith(t, n, lab.Settings+extra)
}

// StartWith is Start with a whole configuration; %[1]s in it is the daemon's
// directory.
func StartWith(t testing.TB, n *lab.Network, config string) *Rig {
	t.Helper()
	return StartExe(t, n, Exe, config)
}

// StartExe is StartWith another program than Exe.
func StartExe(t testing.TB, n *lab.Network, exe, config string) *Rig {
	t.Helper()
	d, err := n.StartDaemonWith(t.Context(), exe, config)
	if err != nil {
		t.Fatal(err)
	}
	r := &Rig{n, d, control.NewClient(d.Socket), exe}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", r.Daemon.Log())
		}
		select {
		case <-r.Daemon.Ended():
		default:
			if err := r.Daemon.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

// Restart starts the daemon again that has ended, with what it left.
func (r *Rig) Restart(t testing.TB) {
	t.Helper()
	d, err := r.Network.Restart(t.Context(), cmp.Or(r.exe, Exe), r.Daemon)
	if err != nil {
		t.Fatal(err)
	}
	r.Daemon = d
}

// Point puts a control point on a host that has found the gateway.
func (r *Rig) Point(t testing.TB, host, device, service string) *lab.ControlPoint {
	t.Helper()
	c := lab.NewControlPoint(r.Host(host))
	found := Found(t, c, lab.Search{Target: device})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Read(ctx, found.Location(), service); err != nil {
		t.Fatal(err)
	}
	return c
}

// Found searches until the gateway answers. A search may be lost, and is sent more
// than once (UDA 1.1 section 1.3.2).
func Found(t testing.TB, c *lab.ControlPoint, search lab.Search) lab.Found {
	t.Helper()
	for tries := 1; ; tries++ {
		ctx, cancel := context.WithTimeout(t.Context(), patience/5)
		found, err := c.Discover(ctx, search)
		cancel()
		if err == nil {
			return found
		}
		if !errors.Is(err, lab.ErrSilence) || tries == 5 {
			t.Fatalf("search %d: %v", tries, err)
		}
	}
}

// Logged waits until the daemon's log has a text. It comes by a pipe, perhaps later
// than what it tells of.
func (r *Rig) Logged(t testing.TB, text string) {
	t.Helper()
	Eventually(t, patience, "the log says "+text, func() bool { return strings.Contains(r.Daemon.Log(), text) })
}

// List returns the owner's view.
func (r *Rig) List(t testing.TB) []control.Mapping {
	t.Helper()
	list, err := r.Owner.Mappings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// On runs a command on a host and gives its output.
func On(t testing.TB, h *lab.Host, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Start(cmd); err != nil {
		t.Fatalf("%s: %v (test/install brings what is missing)", name, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, &out)
	}
	return out.String()
}

// passing are what the gate notes in its own time, and what lets nobody in: flows whose
// hosts are told for a minute that they are over, which machines have sent something lately,
// and which have answered.
var passing = regexp.MustCompile(`(set (?:ended_flows6?|machines|known|(?:new_)?askers|web_askers6?|full_for(?:_known)?) \{[^}]*?)\n\s*elements = \{[^}]*\}`)

// Ruleset returns what a host's kernel holds that opens or closes something, without
// counters and times.
func Ruleset(t testing.TB, h *lab.Host) string {
	t.Helper()
	return passing.ReplaceAllString(On(t, h, "nft", "-s", "list", "ruleset"), "$1")
}

// Passes reports whether a packet from the Internet to an external port arrives at
// a port of a host.
func (r *Rig) Passes(t testing.TB, protocol string, external uint16, to *lab.Host, internal uint16) bool {
	t.Helper()
	return r.probe(t, protocol, external, to, internal, patience)
}

// Reaches reports whether a packet from an address of the Internet host arrives at a
// host that listens at the port that it was sent to.
func (r *Rig) Reaches(t testing.TB, protocol string, from netip.Addr, to netip.AddrPort, h *lab.Host, wait time.Duration) bool {
	t.Helper()
	at := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		at = netip.IPv6Unspecified()
	}
	k := lab.Knock{
		Protocol: protocol, From: r.Internet, Source: netip.AddrPortFrom(from, 0), To: to,
		Receiver: h, At: netip.AddrPortFrom(at, to.Port()), Patience: wait,
	}
	got, err := k.Send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got.Arrived
}

// Blocked is the opposite, watched for a shorter time.
func (r *Rig) Blocked(t testing.TB, protocol string, external uint16, to *lab.Host, internal uint16) bool {
	t.Helper()
	return !r.probe(t, protocol, external, to, internal, 300*time.Millisecond)
}

func (r *Rig) probe(t testing.TB, protocol string, external uint16, to *lab.Host, internal uint16, wait time.Duration) bool {
	t.Helper()
	arrived, _, err := lab.Probe(t.Context(), protocol, r.Internet, netip.AddrPortFrom(lab.GatewayWAN, external), to, internal, wait)
	if err != nil {
		t.Fatal(err)
	}
	return arrived
}

// Eventually waits until ok holds.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", within, what)
		case <-tick.C:
		}
	}
}
