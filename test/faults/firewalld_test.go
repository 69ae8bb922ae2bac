package faults

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/lab"
	testrig "portcullis/test/rig"
)

// busPolicy lets the programs of one test talk to each other, and nobody else hears.
const busPolicy = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
 <type>system</type>
 <listen>unix:path={bus}</listen>
 <auth>EXTERNAL</auth>
 <policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>`

// byFirewalld runs firewalld on a bus and with files of its own: the WAN in the zone
// external, the LAN in the zone internal, from which all may go out and which may
// talk to the gateway.
func byFirewalld(t *testing.T, n *lab.Network) func() {
	t.Helper()
	dir := t.TempDir()
	etc, bus := filepath.Join(dir, "etc"), filepath.Join(dir, "bus")
	copyTree(t, "/etc/firewalld", etc)
	for _, options := range []string{
		"--zone=external --add-interface=wan0", "--zone=internal --add-interface=br-lan", "--zone=internal --set-target=ACCEPT",
		"--new-policy=out", "--policy=out --add-ingress-zone=internal", "--policy=out --add-egress-zone=external", "--policy=out --set-target=ACCEPT",
	} {
		testrig.On(t, n.Gateway, "firewall-offline-cmd", append([]string{"--system-config", etc}, strings.Fields(options)...)...)
	}
	policy := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(policy, []byte(strings.Replace(busPolicy, "{bus}", bus, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	serve(t, n, bus, "dbus-daemon", "--nofork", "--nosyslog", "--config-file="+policy)
	testrig.Eventually(t, 10*time.Second, "the bus is there", func() bool {
		_, err := os.Stat(bus)
		return err == nil
	})
	serve(t, n, bus, "firewalld", "--nofork", "--nopid", "--system-config", etc, "--log-target", "console")
	ask := func(option string) error {
		cmd := exec.Command("firewall-cmd", option)
		cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+bus)
		if err := n.Gateway.Start(cmd); err != nil {
			t.Fatalf("%v (test/install brings what is missing)", err)
		}
		return cmd.Wait()
	}
	testrig.Eventually(t, 30*time.Second, "firewalld is running", func() bool { return ask("--state") == nil })
	return func() {
		t.Helper()
		for _, option := range []string{"--reload", "--complete-reload"} {
			if err := ask(option); err != nil {
				t.Fatalf("firewall-cmd %s: %v", option, err)
			}
		}
	}
}

// serve runs a program on the gateway until the test ends, and shows what it said
// when that failed.
func serve(t *testing.T, n *lab.Network, bus, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+bus)
	var out said
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Gateway.Start(cmd); err != nil {
		t.Fatalf("%v (test/install brings what is missing)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.text())
		}
	})
}

// said is what a program says while it runs.
type said struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Write(p)
}

func (s *said) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}
