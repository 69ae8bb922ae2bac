package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/config"
	"portcullis/internal/incumbent"
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
		"uci": "config upnpd config\n", "bad": "[lan]\ninterfaces = 3\n", "same": "[[rule]]\nname = \"x\"\naction = \"deny\"\nclients = [\"iface:br-old\"]\n",
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
		"-i wan0": "no LAN is named", "-i a/b -a br-lan": `command line:1: look at this: "a/b" is not the name of an interface`,
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
	f.notes = make([]incumbent.Note, maxNotes+5)
	log.Reset()
	f.tell(slog.New(slog.NewTextHandler(&log, nil)))
	if n := strings.Count(log.String(), "\n"); n != maxNotes+1 || !strings.Contains(log.String(), "more=5") {
		t.Errorf("%d lines, the last:\n%s", n, log.String()[log.Len()-200:])
	}
}

// TestPidFile: one that another process of this program has is no start; what it has of others is
// replaced, and it goes with the daemon.
func TestPidFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	for text, running := range map[string]bool{"": false, "x": false, "-1": false, "1\n": false, "99999999\n": false} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unlessRunning(file); (err != nil) != running {
			t.Errorf("%q: %v", text, err)
		}
	}
	p, err := writePid(file)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) == "" || strings.TrimSpace(string(b)) == "99999999" {
		t.Errorf("%q, %v", b, err)
	}
	if err := p.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it is still there")
	}
	if p, err := writePid(""); p != nil || err != nil || p.remove() != nil {
		t.Error(p, err)
	}
}
