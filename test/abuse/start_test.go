package abuse

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestRefusesToStart: a daemon that cannot be a gate says why and what to do,
// and leaves nothing behind.
func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	before := testrig.On(t, n.Gateway, "nft", "-s", "list", "ruleset")
	taken, err := n.Gateway.Listen(hostPort(lab.GatewayLAN, 5001))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	server, err := n.Gateway.ListenPacket(hostPort(lab.GatewayLAN, 5351))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	replace := func(old, new string) string { return strings.Replace(lab.Settings, old, new, 1) }
	for _, c := range []struct {
		name, config string
		says         []string
	}{
		{"A9/LAN is WAN", replace(`"wan0"`, `"br-lan"`), []string{"br-lan"}},
		{"taken port", lab.Settings + "[upnp]\nhttp_port = 5001\n", []string{"5001", "taken", "upnp.http_port"}},
		{"another server of NAT-PMP", lab.Settings, []string{"5351", "another program", "pcp.natpmp"}},
		{"A9/LAN holds the default route", replace(`"br-lan"`, `"wan0"`), []string{"wan0"}},
		{"C13/unknown key", lab.Settings + "[policy]\ndefualt = \"allow\"\n", []string{"defualt", ":"}},
		{"C13/bad CIDR", lab.Settings + "[[rule]]\nname=\"x\"\naction=\"deny\"\nclients=[\"192.168.1.0/33\"]\n", []string{"192.168.1.0/33"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := n.StartDaemonWith(t.Context(), testrig.Exe, c.config)
			if err == nil {
				_ = d.Stop()
				t.Fatal("it started")
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("does not say %q: %v", want, err)
				}
			}
			if after := testrig.On(t, n.Gateway, "nft", "-s", "list", "ruleset"); after != before {
				t.Errorf("left behind:\n%s", after)
			}
		})
	}
}

// TestWithoutCapability: without CAP_NET_ADMIN the reason is named.
func TestWithoutCapability(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	dir, err := os.MkdirTemp("", "portcullis-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "portcullis")
	data, err := os.ReadFile(testrig.Exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "run")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := n.Gateway.Start(cmd); err != nil {
		t.Skipf("cannot become another user here: %v", err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
	if !strings.Contains(out.String(), "CAP_NET_ADMIN is missing") {
		t.Errorf("the reason is not named:\n%s", &out)
	}
}

// TestStartsWithoutWAN: the daemon does not wait for the WAN, and uses it when it
// comes; a new address is reported at once.
func TestStartsWithoutWAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	testrig.On(t, n.Gateway, "ip", "addr", "flush", "dev", "wan0")
	testrig.On(t, n.Gateway, "ip", "link", "set", "wan0", "down")
	r := startOn(t, n, "")
	c := r.v1(t, "a")
	external := func() string {
		out, err := c.Call(t.Context(), "GetExternalIPAddress")
		if err != nil {
			t.Fatal(err)
		}
		return out["NewExternalIPAddress"]
	}
	if ip := external(); ip != "" {
		t.Errorf("SOAP-1: external address %q while the WAN is down", ip)
	}
	r.refused(t, c, udp(6000, 6000), 501)
	testrig.On(t, n.Gateway, "ip", "link", "set", "wan0", "up")
	testrig.On(t, n.Gateway, "ip", "addr", "add", "203.0.113.5/24", "dev", "wan0")
	testrig.On(t, n.Gateway, "ip", "route", "add", "default", "via", "203.0.113.66")
	testrig.Eventually(t, soon, "the WAN is used", func() bool { return external() == "203.0.113.5" })
	if err := c.Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("no packet arrives")
	}
	testrig.On(t, n.Gateway, "ip", "addr", "del", "203.0.113.5/24", "dev", "wan0")
	testrig.On(t, n.Gateway, "ip", "addr", "add", "203.0.113.9/24", "dev", "wan0")
	testrig.On(t, n.Gateway, "ip", "route", "add", "default", "via", "203.0.113.66")
	testrig.Eventually(t, soon, "the new address is reported", func() bool { return external() == "203.0.113.9" })
	arrived, _, err := lab.Probe(t.Context(), "UDP", r.Internet, netip.MustParseAddrPort("203.0.113.9:6000"), r.Host("a"), 6000, 3*time.Second)
	if err != nil || !arrived {
		t.Errorf("the mapping does not follow the address: %v, %v", arrived, err)
	}
}

// TestLabCommand: `portcullis-lab` as a person calls it, as JSON, and interrupted.
func TestLabCommand(t *testing.T) {
	t.Parallel()
	exe := filepath.Join(t.TempDir(), "portcullis-lab")
	if out, err := exec.Command("go", "build", "-o", exe, "portcullis/cmd/portcullis-lab").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(exe, "--daemon", testrig.Exe, "--json").Output()
	var report struct {
		OK    bool
		Steps []lab.Step
	}
	if jsonErr := json.Unmarshal(out, &report); err != nil || jsonErr != nil || !report.OK || len(report.Steps) < 15 {
		t.Errorf("%v, %v:\n%s", err, jsonErr, out)
	}
	tmp := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "--daemon", testrig.Exe, "--keep")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make([]byte, 256)
	if _, err := stderr.Read(seen); err != nil || !strings.Contains(string(seen), "stays up until Ctrl-C") {
		t.Errorf("--keep said %q, %v", seen, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
