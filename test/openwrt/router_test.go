package openwrt

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"portcullis/internal/lab"
	"portcullis/internal/netns/netnstest"
	testrig "portcullis/test/rig"
)

// router is the file system of one, its ubus, and its procd.
type router struct {
	t    *testing.T
	root string
	host *lab.Host // in whose network its programs run; nil: in that of the test

	mu       sync.Mutex
	networks string // what netifd says
	sent     []call // to procd
	procd    procd
}

// call is one of the object "service".
type call struct {
	Method  string
	Message object
}

// enter runs a program inside a router's file system: root, helper, program, and the command.
const enter = `set -e
root=$1 helper=$2 exe=$3
shift 3
mount --bind "$root" "$root"
for dir in usr/bin usr/lib usr/lib64 usr/lib32 dev proc; do
	[ ! -d "/$dir" ] || mount --rbind "/$dir" "$root/$dir"
done
mount --bind "$helper" "$root/helper"
mount --bind "$exe" "$root/usr/sbin/portcullis"
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/sbin:/bin:/usr/bin "$@"
`

// newRouter installs the package's files into a new file system, beside what OpenWrt has.
func newRouter(t *testing.T, host *lab.Host) *router {
	t.Helper()
	needRoot(t)
	netnstest.NeedProgram(t, "busybox")
	r := &router{t: t, root: t.TempDir(), host: host}
	if err := os.Chmod(r.root, 0o755); err != nil {
		t.Fatal(err)
	}
	install := exec.Command("make", "--silent", "-C", "../..", "install-openwrt", "DESTDIR="+r.root, "BIN="+testrig.Exe)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, dir := range []string{"bin", "sbin", "tmp/run", "lib/functions", "usr/bin", "usr/lib", "usr/lib64", "usr/lib32", "dev", "proc", "etc/rc.d"} {
		if err := os.MkdirAll(filepath.Join(r.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.link("tmp", "var")
	libraries, err := filepath.Glob("/usr/lib/*linux*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range libraries {
		r.link(name, "lib/"+filepath.Base(name))
	}
	r.link("usr/lib64", "lib64")
	r.write("helper", "")
	r.write("etc/passwd", "root:x:0:0:root:/root:/bin/ash\nportcullis:x:32768:32768:portcullis:/var/run/portcullis:/bin/false\n")
	r.write("etc/group", "root:x:0:\nportcullis:x:32768:\n")
	for _, name := range strings.Fields("sh ash sed grep find head cmp mv mkdir chmod chown ln cat sleep basename rm env id") {
		r.link("/usr/bin/busybox", "bin/"+name)
	}
	for name := range standIns {
		if name != "ujail" {
			r.link("/helper", "bin/"+name)
		}
	}
	for name, at := range map[string]string{"rc.common": "etc/rc.common", "procd.sh": "lib/functions/procd.sh", "functions.sh": "lib/functions.sh"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		r.write(at, string(text))
	}
	r.write("sbin/fw4", "#!/bin/sh\n[ \"$*\" != \"-q zone wan\" ] || echo wan0\n")
	for _, script := range []string{"etc/rc.common", "sbin/fw4"} {
		if err := os.Chmod(filepath.Join(r.root, script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.networks = `{"interface":[{"interface":"lan","up":true,"l3_device":"br-lan","device":"br-lan"},{"interface":"wan","up":true,"l3_device":"wan0","device":"wan0"}]}`
	r.serve()
	return r
}

func needRoot(t *testing.T) {
	t.Helper()
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(ids)); len(f) != 3 || f[2] != "4294967295" {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: the files of a router have two owners")
		}
		t.Skip("needs root: the files of a router have two owners")
	}
}

func (r *router) link(to, name string) {
	r.t.Helper()
	if err := os.Symlink(to, filepath.Join(r.root, name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *router) write(name, text string) {
	r.t.Helper()
	at := filepath.Join(r.root, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *router) read(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.root, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// jails gives the router ujail.
func (r *router) jails() { r.link("/helper", "sbin/ujail") }

// command returns one that runs inside the router.
func (r *router) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	return exec.Command("unshare", append([]string{"--mount", "--propagation=private", "sh", "-c", enter, "enter",
		r.root, self, testrig.Exe}, args...)...)
}

// run runs a command inside the router, and returns what it printed.
func (r *router) run(args ...string) (string, error) {
	r.t.Helper()
	cmd := r.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.start(cmd); err != nil {
		r.t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err
}

func (r *router) start(cmd *exec.Cmd) error {
	if r.host == nil {
		return cmd.Start()
	}
	return r.host.Start(cmd)
}

// do is run for what must succeed.
func (r *router) do(args ...string) string {
	r.t.Helper()
	out, err := r.run(args...)
	if err != nil {
		r.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

// serve answers ubus until the test ends.
func (r *router) serve() {
	l, err := net.Listen("unix", filepath.Join(r.root, bus))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var args []string
			if json.NewDecoder(c).Decode(&args) == nil {
				_, _ = c.Write([]byte(r.answer(args)))
			}
			_ = c.Close()
		}
	}()
}

// answer is what ubus prints of a call: of netifd's, or of procd's.
func (r *router) answer(args []string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.Join(args, " ") == "call network.interface dump" {
		return r.networks
	}
	if len(args) != 4 || args[0] != "call" || args[1] != "service" {
		return "Command failed: Not found\n"
	}
	var message object
	if err := json.Unmarshal([]byte(args[3]), &message); err != nil {
		return "Failed to parse message data\n"
	}
	r.sent = append(r.sent, call{args[2], message})
	if r.host != nil {
		r.supervise(args[2], message)
	}
	return ""
}

// said returns what procd was sent since the last time.
func (r *router) said() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent = nil
	return sent
}
