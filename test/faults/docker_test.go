package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// besideDocker are the rules that the owner has for each family before Docker comes,
// as iptables-restore loads them at boot.
var besideDocker = map[string]string{
	"iptables": `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i br-lan -o wan0 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan0 -j MASQUERADE
COMMIT
`,
	"ip6tables": `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i br-lan -o wan0 -j ACCEPT
-A FORWARD -p ipv6-icmp -j ACCEPT
COMMIT
`,
}

// docker is the one of this machine, on the gateway, with a directory of its own.
type docker struct {
	r    *testrig.Rig
	dir  string
	stop func() // ends the daemon and its containers
}

func startDocker(t *testing.T, r *testrig.Rig) []reload {
	t.Helper()
	d := newDocker(t, r)
	return []reload{{"Docker is restarted", func(t *testing.T) { t.Helper(); d.stop(); d.start(t) }}}
}

func newDocker(t *testing.T, r *testrig.Rig) *docker {
	t.Helper()
	if ids, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(ids))[2] != "4294967295" {
		if os.Getenv("CI") == "true" {
			t.Fatal("Docker needs the machine's root")
		}
		t.Skip("Docker needs the machine's root")
	}
	for program, rules := range besideDocker {
		cmd := exec.Command(program+"-restore", "-w", "5")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := output(r, cmd); err != nil {
			t.Fatalf("%s-restore: %v\n%s", program, err, out)
		}
	}
	d := &docker{r: r, dir: t.TempDir()}
	config, err := json.Marshal(map[string]any{
		"hosts":         []string{d.socket()},
		"data-root":     filepath.Join(d.dir, "data"),
		"exec-opts":     []string{"native.cgroupdriver=cgroupfs"},
		"cgroup-parent": d.group(),
		"log-level":     "warn",
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(d.dir, "daemon.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.removeGroups(t) })
	d.start(t)
	return d
}

// start starts the daemon, and it its containers.
func (d *docker) start(t *testing.T) {
	t.Helper()
	cmd := apart("dockerd", "--config-file="+filepath.Join(d.dir, "daemon.json"))
	cmd.Env = append(os.Environ(), "container=test") // or it gives the machine an AppArmor profile
	d.stop = background(t, d.r, "dockerd", cmd)
	testrig.Eventually(t, starting, "Docker runs", func() bool {
		_, err := output(d.r, exec.Command("docker", "--host="+d.socket(), "version"))
		return err == nil
	})
}

func (d *docker) tell(t *testing.T, args string) string {
	t.Helper()
	out, err := output(d.r, exec.Command("docker", append([]string{"--host=" + d.socket()}, strings.Fields(args)...)...))
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", args, err, out)
	}
	return out
}

func (d *docker) socket() string { return "unix://" + filepath.Join(d.dir, "docker.sock") }

// group is that of the containers' control groups, which are the machine's.
func (d *docker) group() string { return filepath.Base(filepath.Dir(d.dir)) }

// removeGroups removes them, in each hierarchy of the machine.
func (d *docker) removeGroups(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"", "*"} {
		found, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", pattern, d.group()))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range found {
			if err := removeDirs(dir); err != nil {
				t.Error(err)
			}
		}
	}
}

// removeDirs removes a directory of directories; the files in it are the kernel's.
func removeDirs(dir string) error {
	inside, err := os.ReadDir(dir)
	for _, e := range inside {
		if e.IsDir() {
			err = errors.Join(err, removeDirs(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(dir))
}

// run runs a container that answers at a UDP port of the gateway, whenever Docker
// runs.
func (d *docker) run(t *testing.T, port int) {
	t.Helper()
	d.tell(t, fmt.Sprintf("run --detach --restart=always --publish=%d:7000/udp echo /echo", port))
}

// image makes the container's image, of a static program.
func (d *docker) image(t *testing.T) {
	t.Helper()
	build := exec.Command("go", "build", "-o", filepath.Join(d.dir, "echo"), "./testdata/echo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(d.dir, "echo.tar")
	if out, err := exec.Command("tar", "--create", "--file="+file, "--directory="+d.dir, "echo").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	d.tell(t, "import "+file+" echo")
}

// answers reports whether a container answers the Internet at a port of the gateway.
func (d *docker) answers(t *testing.T, port uint16) bool {
	t.Helper()
	conn, err := d.r.Internet.DialFrom(t.Context(), netip.AddrPort{}, "udp", netip.AddrPortFrom(lab.GatewayWAN, port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	buf := make([]byte, 8)
	if _, err := conn.Write([]byte("hello")); err != nil {
		return false
	}
	_, err = conn.Read(buf)
	return err == nil
}

// TestHostFirewallsDocker: what a container has published is its own, before and
// after Docker is restarted, and a client's port becomes the container's that is
// published later. From Docker's restart on, what is dropped in DOCKER-USER stays
// dropped.
func TestHostFirewallsDocker(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	d := newDocker(t, &testrig.Rig{Network: n})
	d.image(t)
	d.run(t, 7000)
	testrig.On(t, n.Gateway, "iptables", strings.Fields("-w 5 -I DOCKER-USER -i wan0 -p udp -m conntrack --ctorigdstport 6001 -j DROP")...)
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, `backend = "iptables"`, 1))
	c := opened(t, r, 6000)
	for _, port := range []uint16{6001, 7001} {
		if err := c.Add(t.Context(), udp(port)); err != nil {
			t.Fatal(err)
		}
	}
	// After the restart Docker's jump to its ports comes behind ours, and not before it
	// as it does here.
	d.run(t, 7001)
	testrig.Eventually(t, soon, "the second container answers", func() bool { return d.answers(t, 7001) })
	published := func(when string) {
		t.Helper()
		testrig.Eventually(t, soon, "the container answers "+when, func() bool { return d.answers(t, 7000) })
		var refused *lab.UPnPError
		if err := c.Add(t.Context(), udp(7000)); !errors.As(err, &refused) || refused.Code != 718 {
			t.Errorf("a published port is asked for %s: %v", when, err)
		}
	}
	published("before the restart")
	d.stop()
	d.start(t)
	published("after the restart")
	working(t, r, 6000)
	if !r.Blocked(t, "UDP", 6001, r.Host("a"), 6001) {
		t.Error("what the owner drops has passed")
	}
}
