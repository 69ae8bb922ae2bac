package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// dropIn is the program under the name miniupnpd on a gateway, with its files.
type dropIn struct {
	t       *testing.T
	n       *lab.Network
	exe     string
	conf    string
	pidFile string
	args    []string
	owner   *control.Client
}

// theirConf is as a router has it. The LAN is named by its address, as many do.
const theirConf = `# miniupnpd.conf
ext_ifname=wan0
ext_ip=11.22.33.44
listening_ip=192.168.77.1/24
http_port=5000
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
friendly_name=Router 7
notify_interval=900
lease_file=DIR/leases/file
uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8
deny 7000-7010 0.0.0.0/0 1-65535 # never
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`

func newDropIn(t *testing.T, n *lab.Network) *dropIn {
	t.Helper()
	dir := t.TempDir()
	d := &dropIn{
		t: t, n: n, exe: filepath.Join(dir, "miniupnpd"), conf: filepath.Join(dir, "miniupnpd.conf"), pidFile: filepath.Join(dir, "pid"),
		owner: control.NewClient(filepath.Join(dir, "control.sock")),
	}
	base := filepath.Join(dir, "portcullis.toml")
	if err := os.Mkdir(filepath.Join(dir, "leases"), 0o700); err != nil {
		t.Fatal(err)
	}
	beside := fmt.Sprintf("[firewall]\naccept_chain = %q\n[state]\ndir = %q\n[control]\nsocket = %q\n", lab.FirewallChain, filepath.Join(dir, "state"), filepath.Join(dir, "control.sock"))
	for name, text := range map[string]string{d.conf: d.filled(theirConf), base: beside} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// As one file is swapped on a router; what a test itself writes, others that fork hold open.
	if out, err := exec.Command("cp", testrig.Exe, d.exe).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d.args = []string{"-f", d.conf, "-P", d.pidFile, "--config", base}
	t.Cleanup(func() { // what a failure has left
		if pid, err := d.running(); err == nil {
			_ = syscall.Kill(pid, syscall.SIGTERM)
			d.ended(pid)
		}
	})
	return d
}

// start is what an init script does. It returns what the program said, when it has returned.
func (d *dropIn) start(more ...string) (string, error) {
	d.t.Helper()
	cmd := exec.Command(d.exe, append(d.args, more...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := d.n.Gateway.Start(cmd); err != nil {
		d.t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err
}

// running returns the process in the pid file.
func (d *dropIn) running() (int, error) {
	b, err := os.ReadFile(d.pidFile)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// ended waits until a process is gone, and with it the daemon.
func (d *dropIn) ended(pid int) {
	d.t.Helper()
	testrig.Eventually(d.t, 20*time.Second, "it ends", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, alive := d.owner.Status(d.t.Context())
		return (err != nil || bytes.Contains(b, []byte(") Z "))) && alive != nil
	})
}

// TestDropIn: the program under the name miniupnpd, with its file and its options, goes into
// the background when it serves; its clients and its rules are served as before; signals do
// what they should; and it leaves nothing when it ends, however it does.
func TestDropIn(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	before := testrig.Ruleset(t, n.Gateway)
	d := newDropIn(t, n)
	if said, err := d.start(); err != nil || said != "" {
		t.Fatalf("%v\n%s", err, said)
	}
	pid, err := d.running()
	if err != nil {
		t.Fatal(err)
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(name) != "miniupnpd\n" {
		t.Errorf("the process is %q, %v", name, err)
	}
	if said, err := d.start(); err == nil || !strings.Contains(said, fmt.Sprintf("is running already: process %d", pid)) {
		t.Errorf("a second one: %v\n%s", err, said)
	}
	r := &testrig.Rig{Network: n, Owner: d.owner}
	if said, err := cleanup(r); err == nil || !strings.Contains(said, "a daemon runs here (process ") {
		t.Errorf("cleanup while it runs: %v\n%s", err, said)
	}
	out := testrig.On(t, r.Host("a"), "upnpc", "-e", "game", "-a", r.Host("a").Addr.String(), "6000", "6000", "UDP", "3600")
	if !strings.Contains(out, "is redirected to internal "+r.Host("a").Addr.String()+":6000") {
		t.Errorf("upnpc: %s", out)
	}
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("no packet comes by the mapping")
	}
	line := fmt.Sprintf("UDP:6000:%s:6000:", r.Host("a").Addr)
	testrig.Eventually(t, soon, "the lease file has the mapping", func() bool {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(d.conf), "leases", "file"))
		return err == nil && strings.HasPrefix(string(b), line) && strings.HasSuffix(string(b), ":game\n")
	})
	found := testrig.Found(t, lab.NewControlPoint(r.Host("a")), lab.Search{Target: lab.IGD1})
	if doc := fetched(t, r.Host("a"), found.Location()); !strings.Contains(doc, "<friendlyName>Router 7</friendlyName>") || !strings.Contains(doc, "uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8") {
		t.Errorf("the description is\n%s", doc)
	}
	c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
	if err := c.Add(t.Context(), udp(7005)); err == nil {
		t.Error("the file denies 7005, and it is granted")
	}
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2} { // as its scripts send them
		d.signal(pid, s)
	}
	d.write(strings.Replace(theirConf, "deny 7000-7010", "deny 8000-8010", 1))
	d.signal(pid, syscall.SIGHUP)
	testrig.Eventually(t, soon, "SIGHUP reloads the file", func() bool { return c.Add(t.Context(), udp(7005)) == nil })
	if list := r.List(t); len(list) != 2 {
		t.Errorf("open is %+v", list)
	}
	d.signal(pid, syscall.SIGTERM)
	if said, err := d.start(); err != nil || said != "" { // as scripts do, while the first one ends
		t.Fatalf("at once: %v\n%s", err, said)
	}
	again, err := d.running()
	if err != nil || again == pid {
		t.Fatalf("after %d process %d runs, %v", pid, again, err)
	}
	pid = again
	d.signal(pid, syscall.SIGTERM)
	d.ended(pid)
	if after := testrig.Ruleset(t, n.Gateway); after != before {
		t.Errorf("it leaves in the kernel\n%s\nwhere there was\n%s", after, before)
	}
	if _, err := os.Stat(d.pidFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pid file: %v", err)
	}

	if said, err := d.start("-vv"); err != nil || said != "" {
		t.Fatalf("again: %v\n%s", err, said)
	}
	if pid, err = d.running(); err != nil {
		t.Fatal(err)
	}
	if list := r.List(t); len(list) != 2 {
		t.Errorf("after a restart there is %+v", list)
	}
	d.signal(pid, syscall.SIGKILL) // of the process that stays; the daemon ends by itself
	testrig.Eventually(t, 20*time.Second, "killed it leaves nothing", func() bool { return testrig.Ruleset(t, n.Gateway) == before })
}

// TestDropInFirst: as the first process of a container, or of a jail, it stays, because all
// others end with that.
func TestDropInFirst(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	before := testrig.Ruleset(t, n.Gateway)
	d := newDropIn(t, n)
	cmd := exec.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", d.exe}, d.args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Gateway.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	testrig.Eventually(t, 20*time.Second, "it serves", func() bool { _, err := d.owner.Status(t.Context()); return err == nil })
	r := &testrig.Rig{Network: n, Owner: d.owner}
	c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
	if err := c.Add(t.Context(), udp(6000)); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it has ended: %v\n%s", err, &out)
	default:
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	d.signal(first, syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	if after := testrig.Ruleset(t, n.Gateway); after != before {
		t.Errorf("it leaves in the kernel\n%s\nwhere there was\n%s", after, before)
	}
}

// TestDropInRefuses: with a file or an option that is not understood, and without a LAN, it does
// not start, says where that stands, and touches nothing.
func TestDropInRefuses(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	before := testrig.Ruleset(t, n.Gateway)
	d := newDropIn(t, n)
	for name, c := range map[string]struct{ conf, want string }{
		"an option":     {theirConf + "frobnicate=yes\n", "miniupnpd.conf:16: \"frobnicate\" is no option that is known"},
		"a rule":        {theirConf + "deny 9000-8000 0.0.0.0/0 1\n", "miniupnpd.conf:16: \"9000-8000\" is not a port"},
		"no LAN":        {"ext_ifname=wan0\n", "no LAN is named: listening_ip=INTERFACE, or -a INTERFACE"},
		"another's LAN": {"ext_ifname=wan0\nlistening_ip=192.168.99.1\n", "miniupnpd.conf:2: look at this: no interface of this machine has the address \"192.168.99.1\""},
		"one of two":    {theirConf + "listening_ip=192.168.99.1\n", "miniupnpd.conf:16: look at this: no interface"},
		"no WAN":        {theirConf + "ext_ifname=a/b\n", "miniupnpd.conf:16: look at this: \"a/b\" is not the name of an interface"},
		"no address":    {theirConf + "ext_ip=10.0.0.1\n", "miniupnpd.conf:16: look at this: \"10.0.0.1\" is not a public IPv4 address"},
		"the WAN":       {"ext_ifname=wan0\nlistening_ip=wan0\n", "\"wan0\" is the way to the Internet and a LAN"},
		"no such LAN":   {"ext_ifname=wan0\nlistening_ip=wan0\next_ifname=eth9\n", "wan0 is named as LAN but holds the default route"},
	} {
		d.write(c.conf)
		if said, err := d.start(); err == nil || !strings.Contains(said, c.want) {
			t.Errorf("%s: %v, want %s:\n%s", name, err, c.want, said)
		}
	}
	d.write(theirConf)
	if said, err := d.start("-p5000"); err == nil || !strings.Contains(said, `command line:7: "-p5000" is no option`) {
		t.Errorf("%v\n%s", err, said)
	}
	if _, err := os.Stat(d.pidFile); !errors.Is(err, fs.ErrNotExist) || testrig.Ruleset(t, n.Gateway) != before {
		t.Errorf("what did not start has left something: %v", err)
	}
}

func (d *dropIn) write(text string) {
	d.t.Helper()
	if err := os.WriteFile(d.conf, []byte(d.filled(text)), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// filled is a configuration with the directory of this test.
func (d *dropIn) filled(text string) string {
	return strings.ReplaceAll(text, "DIR", filepath.Dir(d.conf))
}

func (d *dropIn) signal(pid int, s syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		d.t.Fatal(err)
	}
}
