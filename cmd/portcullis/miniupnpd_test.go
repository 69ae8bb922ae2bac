package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/config"
	"portcullis/internal/incumbent"
	"portcullis/internal/slog"
)

// TestAsIncumbent: the program is miniupnpd by its name as well, wherever that is.
func TestAsIncumbent(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/usr/sbin/miniupnpd -d": "miniupnpd -d", "miniupnpd": "miniupnpd", "/usr/bin/portcullis run": "run", "portcullis": "", "miniupnpd-x run": "run",
	} {
		if got := strings.Join(asIncumbent(strings.Fields(in)), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestMiniupnpdCLI: help and version are those of the command line that it takes, and a mistake in
// it is said with its place.
func TestMiniupnpdCLI(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"miniupnpd --help":           "-f FILE        the miniupnpd.conf",
		"miniupnpd -h":               "usage: miniupnpd [OPTION...]",
		"miniupnpd -V":               "portcullis ",
		"miniupnpd --version":        "portcullis ",
		"miniupnpd -f /x --json":     `command line:3: "--json" is no option that is known (miniupnpd --help)`,
		"miniupnpd -f /nonexistent":  "no such file",
		"miniupnpd list":             "`ln -s miniupnpd /usr/sbin/portcullis` makes it `portcullis list` as well",
		"miniupnpd lists":            `command line:1: "lists" is no option that is known (miniupnpd --help)`,
		"help miniupnpd":             "usage: portcullis miniupnpd [ARGUMENT...]",
		"miniupnpd --config /x -a l": "/x: no such file",
	} {
		code, out, errs := call(t, strings.Fields(line)...)
		if !strings.Contains(out+errs, want) || (code == exitDone) != (errs == "") {
			t.Errorf("%s: exit %d, want %s\n%s%s", line, code, want, out, errs)
		}
	}
}

// TestForeign: what the command line, the file and a configuration of ours say together is what
// the daemon runs; its log goes to a terminal where there is one.
func TestForeign(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"conf": "ext_ifname=wan0\nlistening_ip=br-lan\nenable_natpmp=yes\nsecure_mode=no\nlease_file=/run/x/leases\n", "base": "[state]\ndir = \"/srv/state\"\n[log]\nformat = \"json\"\n",
		"uci": "config upnpd config\n", "none": "ext_ifname=wan0\n", "bad": "[lan]\ninterfaces = 3\n", "same": "[[rule]]\nname = \"x\"\naction = \"deny\"\nclients = [\"iface:br-old\"]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(args string) (config.Config, *foreign, error) {
		v, err := incumbent.Arguments(strings.Fields(args), dir)
		if err != nil {
			t.Fatal(err)
		}
		f := &foreign{call: v}
		c, source, err := f.load()
		if err == nil && (source.File != filepath.Join(dir, "conf") || source.Sum == config.Sum{}) {
			t.Errorf("%s: it was read from %+v", args, source)
		}
		return c, f, err
	}
	c, f, err := load("-f conf --config base -p 5001 -D")
	if err != nil || c.State.Dir != "/srv/state" || c.UPnP.HTTPPort != 5001 || c.WAN.Interface != "wan0" || c.Miniupnpd.LeaseFile != "/run/x/leases" || c.Log != (config.Log{Level: config.LevelInfo, Format: config.FormatSyslog}) {
		t.Errorf("%+v, %v", c, err)
	}
	if c, _, err := load("-f conf --config base -d"); err != nil || c.Log != (config.Log{Level: config.LevelDebug, Format: config.FormatJSON}) {
		t.Errorf("%+v, %v", c.Log, err)
	}
	if c, _, err := load("-f conf -vv"); err != nil || c.Log != (config.Log{Level: config.LevelDebug, Format: config.FormatSyslog}) {
		t.Errorf("%+v, %v", c.Log, err)
	}
	for args, want := range map[string]string{
		"-f uci": "uci:1: this is no miniupnpd.conf", "-f conf --config bad": "bad:2: lan.interfaces: ", "-a br-lan -i br-lan": "is the way to the Internet and a LAN",
		"-i wan0": "no LAN is named", "-f none": "none: no LAN is named", "-i a/b -a br-lan": `command line:1: look at this: "a/b" is not the name of an interface`,
		"-f conf --config same": `conf, as portcullis.toml:`,
	} {
		if _, _, err := load(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}

	var log bytes.Buffer
	f.tell(slog.New(slog.NewTextHandler(&log, nil)))
	if want := "level=WARN msg=\"not as in miniupnpd\" note=\"" + filepath.Join(dir, "conf") + ":4: stricter: secure_mode: always on"; !strings.Contains(log.String(), want) {
		t.Errorf("it logs %s, want %s", &log, want)
	}
}

// TestForeignPCP: what a configuration of ours says of NAT-PMP and PCP counts where miniupnpd's file
// says nothing of them.
func TestForeignPCP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		conf, base  string
		natpmp, pcp bool
		note        string
	}{
		{"", "", false, false, "pcp.natpmp"},
		{"", "[pcp]\nnatpmp = true\n", true, false, "pcp.pcp"},
		{"", "[pcp]\npcp = true\nnatpmp = true\n", true, true, ""},
		{"", "[pcp]\npcp = true\n", false, true, "pcp.natpmp"},
		{"", "[pcp]\nnatpmp = false\npcp = true\n", false, true, ""},
		{"enable_pcp_pmp=no\n", "[pcp]\nnatpmp = true\n", false, false, ""},
		{"enable_pcp_pmp=yes\n", "[pcp]\npcp = false\n", true, true, ""},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"conf": "listening_ip=br-lan\n" + c.conf, "base": "# ours\n" + c.base} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		v, err := incumbent.Arguments([]string{"-f", "conf", "--config", "base"}, dir)
		if err != nil {
			t.Fatal(err)
		}
		f := &foreign{call: v}
		is, _, err := f.load()
		var note string
		for _, n := range f.notes {
			if strings.HasPrefix(n.Key, "pcp.") {
				note += n.Key
			}
		}
		if err != nil || is.PCP.NATPMP != c.natpmp || is.PCP.PCP != c.pcp || note != c.note {
			t.Errorf("%+v: %+v, noted %q, %v", c, is.PCP, note, err)
		}
	}
}

// TestTell: of more notes than are logged, those of what is opened no more are the first.
func TestTell(t *testing.T) {
	t.Parallel()
	f := &foreign{notes: make([]incumbent.Note, maxNotes+5)}
	f.notes[maxNotes+3] = incumbent.Note{Kind: incumbent.Stricter, Text: "closed now"}
	var log bytes.Buffer
	f.tell(slog.New(slog.NewTextHandler(&log, nil)))
	if first, _, _ := strings.Cut(log.String(), "\n"); !strings.Contains(first, "closed now") || strings.Count(log.String(), "\n") != maxNotes+1 || !strings.Contains(log.String(), "more=5") {
		t.Errorf("it logs\n%s", &log)
	}
}

// TestSupervised: whose end is taken for the daemon's stays: the first process, and one that procd
// or its jail has started, whatever the jail calls itself.
func TestSupervised(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "waits")
	if err := os.WriteFile(script, []byte("echo here; read -r line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"/sbin/ujail": true, "ujail": true, "/sbin/procd": true, "/bin/sh": false, "ujail-x": false} {
		cmd := exec.Command("/bin/sh", script)
		cmd.Args[0] = name
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // execve has put its arguments in place
			t.Fatal(err)
		}
		if got := supervised(os.Getpid(), cmd.Process.Pid); got != want {
			t.Errorf("by %s: %t", name, got)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // read says that there is no line
	}
	if !supervised(1, 0) || supervised(os.Getpid(), os.Getppid()) {
		t.Error("of the first process, or of a test")
	}
}
