package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOffered: what the daemon knows is offered where it can stand, with what it is, and
// nothing that a device says reaches the terminal as it is.
func TestOffered(t *testing.T) {
	t.Parallel()
	config := shower(t)
	for line, want := range map[string]string{
		"delete ":                   "tcp|udp|3\t443/tcp to 192.168.77.2:443, nas|1\t3074/udp to 192.168.77.9:3074, a game of a very long name, as it is tol|7\t8443/tcp to 192.168.50.4:443|9\ttcp [2001:db8:77::20]:22000",
		"delete 3 7 ":               "1\t3074/udp to 192.168.77.9:3074, a game of a very long name, as it is tol|9\ttcp [2001:db8:77::20]:22000",
		"delete udp ":               "3074\tto 192.168.77.9:3074, a game of a very long name, as it is tol",
		"delete tcp 8":              "8443\tto 192.168.50.4:443",
		"delete tcp 443 ":           "",
		"approve ":                  "482913\tudp port 3074 of 192.168.77.9, xbox, a\ufffdgame\ufffd[2J|771204\ttcp port 22 of 192.168.77.2|500123\tdenied udp port 88 of xbox (192.168.77.9)",
		"deny --device 7":           "771204\ttcp port 22 of 192.168.77.2",
		"approve 482913 ":           "",
		"revoke ":                   "500123\tdenied udp port 88 of xbox (192.168.77.9)",
		"list --client ":            "192.168.77.2\tnas, 86:dc:00:00:00:02|192.168.77.9\t86:dc:00:00:00:09|192.168.50.4|2001:db8:77::20\t86:dc:00:00:00:02",
		"list --client=192.168.5":   "--client=192.168.50.4",
		"list --client = 192.168.5": "192.168.50.4", // as bash has it
		"list --mac ":               "86:dc:00:00:00:02\tnas, 192.168.77.2|86:dc:00:00:00:09\t192.168.77.9",
		"list --lan ":               "br-lan\t192.168.77.0/24, 2001:db8:77::/64|br-iot\t192.168.50.0/24",
		"refused --client ":         "2001:db8:77::30\tcam, 86:dc:00:00:00:30",
		"explain --client 2":        "2001:db8:77::30\tcam, 86:dc:00:00:00:30|2001:db8:77::20\t86:dc:00:00:00:02",
		"add tcp ":                  "",
	} {
		var out strings.Builder
		complete(t.Context(), &out, append([]string{"--config", config}, strings.Split(line, " ")...))
		if got := strings.ReplaceAll(strings.TrimSuffix(out.String(), "\n"), "\n", "|"); got != want {
			t.Errorf("%s:\n%s, want\n%s", line, got, want)
		}
	}
}

// TestOffersNothing: a daemon that is not there, one that does not answer, and a file that never
// ends make nobody wait, nor say anything.
func TestOffersNothing(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // lets go who still waits for somebody to write there
		if w, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			w.Close()
		}
	})
	for name, config := range map[string]string{
		"no daemon": file(t, socketOnly), "no file": filepath.Join(t.TempDir(), "none.toml"), "a mistake": file(t, socketOnly+"x = 1\n"),
		"stuck": stuck(t), "a pipe": pipe,
	} {
		var out strings.Builder
		complete(t.Context(), &out, []string{"delete", "--config", config, ""})
		if out.String() != "tcp\nudp\n" {
			t.Errorf("%s: %q", name, out.String())
		}
	}
}

// stuck is a daemon that has the kernel accept for it.
func stuck(t *testing.T) (config string) {
	t.Helper()
	config = file(t, socketOnly)
	l, err := net.Listen("unix", filepath.Join(filepath.Dir(config), "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return config
}

// TestOffersEvery: each value of which the daemon tells is one of the command's.
func TestOffersEvery(t *testing.T) {
	t.Parallel()
	for value, of := range offers {
		for name := range of {
			found := false
			for _, c := range commands() {
				if c.Name != name {
					continue
				}
				for _, o := range c.Options {
					found = found || o.Arg == value
				}
				for _, word := range strings.Fields(strings.Join(c.Forms, " ")) {
					found = found || strings.TrimRight(word, ".") == value
				}
			}
			if !found {
				t.Errorf("%s has no value %s", name, value)
			}
		}
	}
}
