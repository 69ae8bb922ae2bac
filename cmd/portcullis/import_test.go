package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/config"
)

// TestImport: a configuration and leases come out as one file that check accepts, with what is
// not the same on standard error as well.
func TestImport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"conf":   "ext_ifname=eth9\nlistening_ip=br-lan\nenable_natpmp=yes\nhttps_port=1\nallow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
		"here":   "ext_ifname=eth9\nlistening_ip=127.0.0.1/8\n",
		"leases": "TCP:8443:192.168.1.20:443:0:NAS\nTCP:x\n",
		"bad":    "deny 80\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	code, out, errs := call(t, "import", path("conf"), path("leases"))
	if _, err := config.Parse("out", []byte(out)); code != exitDone || err != nil {
		t.Errorf("exit %d, %v\n%s", code, err, out)
	}
	for _, want := range []string{"interfaces = [\"br-lan\"]\n", "\n[[rule]]\n", "\n\n# From " + path("leases"), "\n# portcullis add tcp 8443 192.168.1.20:443 --description='NAS' # a web server (HTTPS)\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, want := range []string{path("conf") + ":4: no counterpart: https_port: ", path("conf") + ":5: stricter: ", path("leases") + ":2: no counterpart: this is no lease\n"} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is not in\n%s", want, errs)
		}
	}
	// An address is looked for on this machine, where it is of no LAN.
	if code, out, errs := call(t, "import", path("here")); code != exitDone || !strings.Contains(errs, `"lo" is not an interface name`) || !strings.Contains(out, "closed until lan.interfaces is set") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	usual := []string{path("none"), path("conf"), path("here")}
	if files, err := filesOf(nil, usual); err != nil || len(files) != 1 || files[0] != path("conf") {
		t.Errorf("without a file it reads %q, %v", files, err)
	}
	if _, err := filesOf(nil, usual[:1]); err == nil || !strings.Contains(err.Error(), "miniupnpd is not configured here ("+path("none")+")") {
		t.Errorf("where there is none: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "import", "-")
	cmd.Args[0] = "portcullis"
	cmd.Stdin = strings.NewReader("config upnpd config\n\toption internal_iface lan\n")
	if out, err := cmd.Output(); err != nil || !strings.HasPrefix(string(out), "# From standard input, ") || !strings.Contains(string(out), `["br-lan"]`) {
		t.Errorf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{exitRefused, path("bad") + ":1: ", []string{path("bad")}},
		{exitRefused, "no such file", []string{path("none")}},
		{exitUsage, "are both configurations", []string{path("conf"), path("here")}},
	} {
		if code, out, errs := call(t, append([]string{"import"}, c.args...)...); code != c.code || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%q: exit %d, %q, %q", c.args, code, out, errs)
		}
	}
}

// TestImportLeaseFile: where a lease file cannot be, or had better not, import says what check
// would; on a router the init script sees to that.
func TestImportLeaseFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, upnpd, networks := filepath.Join(dir, "conf"), filepath.Join(dir, "upnpd"), filepath.Join(dir, "networks")
	for name, text := range map[string]string{
		conf:     "listening_ip=br-lan\nlease_file=" + dir + "/leases\n",
		upnpd:    "config upnpd config\n\toption upnp_lease_file '" + dir + "/leases'\n",
		networks: `{"interface":[{"interface":"lan","up":true,"l3_device":"br-lan"}]}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		file string
		args []string
		said int
	}{{conf, nil, 1}, {upnpd, nil, 1}, {upnpd, []string{"--networks", networks}, 0}} {
		code, _, errs := call(t, append([]string{"import", c.file}, c.args...)...)
		want := c.file + ": look at this: miniupnpd.lease_file: the sandbox lets the daemon change whatever is in its directory, \"" + conf + "\" among it; name a directory that holds nothing else, /run/portcullis say\n"
		if n := strings.Count(errs, want); code != exitDone || n != c.said {
			t.Errorf("%s %q: exit %d, said %d times\n%s", c.file, c.args, code, n, errs)
		}
	}
}

// TestImportIsInterrupted: a pipe that says nothing does not keep import from ending.
func TestImportIsInterrupted(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, new(bytes.Buffer), new(bytes.Buffer), []string{"import", fifo}) }()
	select {
	case code := <-ended:
		if code != exitRefused {
			t.Errorf("exit %d", code)
		}
	case <-time.After(30 * time.Second):
		t.Error("it still reads")
	}
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // by which who reads goes on
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
