package faults

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	testrig "portcullis/test/rig"
)

// busConfig is that of a D-Bus on which anybody may do anything: only the test knows
// where it is.
const busConfig = `<busconfig>
	<type>system</type>
	<listen>unix:path=%s</listen>
	<auth>EXTERNAL</auth>
	<policy context="default">
		<allow user="*"/>
		<allow own="*"/>
		<allow send_destination="*"/>
		<allow receive_sender="*"/>
	</policy>
</busconfig>
`

// firewalld is the one of this machine, on the gateway, with a D-Bus and a directory
// of its own.
type firewalld struct {
	r    *testrig.Rig
	dir  string // in place of /etc/firewalld
	bus  string // its socket
	stop func() // ends the program
}

// startFirewalld is firewalld as it is installed, on nftables.
func startFirewalld(t *testing.T, r *testrig.Rig) []reload {
	t.Helper()
	return startFirewalldOn(t, r, "nftables")
}

// startFirewalldOnIPTables is the same on iptables, all of whose chains it flushes and
// deletes at a reload.
func startFirewalldOnIPTables(t *testing.T, r *testrig.Rig) []reload {
	t.Helper()
	return startFirewalldOn(t, r, "iptables")
}

// startFirewalldOn gives the LAN and the Internet a zone each, and lets the one into
// the other, and the LAN to our ports.
func startFirewalldOn(t *testing.T, r *testrig.Rig, backend string) []reload {
	t.Helper()
	f := newFirewalld(t, r, backend)
	f.tell(t, "--permanent --zone=internal --add-port=1900/udp --add-port=5351/udp --add-port=5000/tcp")
	f.tell(t, "--reload")
	return []reload{
		{"firewall-cmd --reload", func(t *testing.T) { t.Helper(); f.tell(t, "--reload") }},
		{"firewall-cmd --complete-reload", func(t *testing.T) { t.Helper(); f.tell(t, "--complete-reload") }},
		{"firewalld is restarted", func(t *testing.T) { t.Helper(); f.stop(); f.start(t) }},
	}
}

// newFirewalld is the same without our ports.
func newFirewalld(t *testing.T, r *testrig.Rig, backend string) *firewalld {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "firewalld.conf"), []byte("FirewallBackend="+backend+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &firewalld{r: r, dir: dir, bus: filepath.Join(dir, "bus")}
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, f.bus), 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, r, "dbus-daemon", exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+config))
	testrig.Eventually(t, starting, "there is a D-Bus", func() bool {
		conn, err := net.Dial("unix", f.bus)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	f.start(t)
	for _, args := range []string{
		"--zone=internal --add-interface=br-lan",
		"--zone=external --add-interface=wan0",
		"--zone=external --add-forward-port=port=7070:proto=udp:toport=7070:toaddr=192.168.77.20",
		"--new-policy=lan-to-wan",
		"--policy=lan-to-wan --add-ingress-zone=internal",
		"--policy=lan-to-wan --add-egress-zone=external",
		"--policy=lan-to-wan --set-target=ACCEPT",
	} {
		f.tell(t, "--permanent "+args)
	}
	f.tell(t, "--reload")
	return f
}

// start starts the program and waits until its rules are in the kernel.
func (f *firewalld) start(t *testing.T) {
	t.Helper()
	f.stop = background(t, f.r, "firewalld", f.onBus(apart("firewalld",
		"--nofork", "--nopid", "--log-target=console", "--system-config="+f.dir)))
	testrig.Eventually(t, starting, "firewalld runs", func() bool {
		out, _ := output(f.r, f.onBus(exec.Command("firewall-cmd", "--state")))
		return out == "running\n"
	})
}

// tell wants a command to be done.
func (f *firewalld) tell(t *testing.T, args string) {
	t.Helper()
	if out, err := output(f.r, f.onBus(exec.Command("firewall-cmd", strings.Fields(args)...))); err != nil {
		t.Fatalf("firewall-cmd %s: %v\n%s", args, err, out)
	}
}

func (f *firewalld) onBus(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+f.bus)
	return cmd
}
