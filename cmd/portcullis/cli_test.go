package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/control"
)

// call runs a command as main does.
func call(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), &stdout, &stderr, args)
	return code, stdout.String(), stderr.String()
}

// file writes a configuration whose socket nobody listens on.
func file(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "portcullis.toml")
	text = strings.ReplaceAll(text, "@", dir)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const socketOnly = "[control]\nsocket = \"@/control.sock\"\n"

// TestCommandLine: the exit codes of the contract, and what is said with them.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	good := file(t, socketOnly)
	tier0 := file(t, "[[rule]]\nname = \"smb\"\naction = \"allow\"\ninternal_ports = [\"445\"]\n")
	host := file(t, "[[rule]]\nname = \"cams\"\naction = \"deny\"\nclients = [\"host:Cam-*\"]\n")
	typo := file(t, "[lan]\ninterface = [\"br-lan\"]\n")
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"nothing", nil, 2, "portcullis: a command is missing (portcullis help)\n"},
		{"help", []string{"help"}, 0, "usage: portcullis COMMAND"},
		{"help/-h", []string{"-h"}, 0, "usage: portcullis COMMAND"},
		{"help/--help", []string{"--help"}, 0, "usage: portcullis COMMAND"},
		{"help of a command", []string{"list", "--help"}, 0, "usage: portcullis list"},
		{"help of a command/help", []string{"help", "list"}, 0, "usage: portcullis list"},
		{"help of a command/-h last", []string{"delete", "--all", "-h"}, 0, "example: portcullis delete udp 3074\n"},
		{"help of none", []string{"help", "bogus"}, 2, "portcullis: there is no command \"bogus\" (portcullis help)\n"},
		{"help of none/-h", []string{"statsu", "-h"}, 2, "did you mean status? (portcullis help)\n"},
		{"unknown command", []string{"frobnicate"}, 2, "portcullis: there is no command \"frobnicate\" (portcullis help)\n"},
		{"unknown command/near", []string{"statsu"}, 2, "portcullis: there is no command \"statsu\"; did you mean status? (portcullis help)\n"},
		{"unknown flag", []string{"status", "--frob"}, 2, "portcullis: there is no option \"--frob\"\nusage: portcullis status [--config FILE] [--json]\n"},
		{"unknown flag/near", []string{"list", "--jsno"}, 2, "there is no option \"--jsno\"; did you mean --json?\n"},
		{"flag of another", []string{"status", "--all"}, 2, "status has no option --all\n"},
		{"too much", []string{"status", "--config", good, "x"}, 2, "portcullis: status takes no arguments, and here is \"x\"\nusage: portcullis status"},
		{"flags before the command", []string{"--config", good, "check"}, 0, "http_port = 5000"},
		{"flags behind the arguments", []string{"delete", "99", "--config=" + good}, 1, "portcullis is not running here (no answer on "},
		{"version/-V", []string{"-V"}, 0, "portcullis " + version},
		{"version/--version", []string{"--version"}, 0, "portcullis " + version},
		{"version", []string{"version"}, 0, "portcullis " + version},
		{"check", []string{"check", "--config", good}, 0, "http_port = 5000"},
		{"check/missing file", []string{"check", "--config", good + "x"}, 1, "no such file"},
		{"check/unknown key", []string{"check", "--config", typo}, 1, typo + ":2: "},
		{"check/Tier 0", []string{"check", "--config", tier0}, 1, tier0 + ":4: "},
		{"check/host names", []string{"check", "--config", host}, 0, "host:cam-*"},
		{"run/bad file", []string{"run", "--config", typo}, 1, typo + ":2: "},
		{"list/sort", []string{"list", "--config", good, "--sort", "prot"}, 2, "did you mean port?"},
		{"list/mac", []string{"list", "--config", good, "--mac", "xbox"}, 2, `"xbox" is not a MAC address`},
		{"explain/client", []string{"explain", "--client", "nas", "--port", "1", "--protocol", "tcp"}, 2, `--client: "nas" is neither an address nor a MAC address`},
		{"add/no daemon", []string{"add", "tcp", "8443", "192.168.1.20:443", "--config", good}, 1, "portcullis is not running here"},
		{"add/nothing", []string{"add"}, 2, "tcp|udp is missing"},
		{"add/icmp", []string{"add", "icmp", "8443", "192.168.1.20:443"}, 2, `"icmp" is not a protocol: it is tcp or udp`},
		{"add/host name", []string{"add", "tcp", "8443", "nas:443"}, 2, `"nas:443" is not the address and the port of a host`},
		{"add/port", []string{"add", "tcp", "0", "192.168.1.20:443"}, 2, `"0" is not a port from 1 to 65535`},
		{"add/one port", []string{"add", "tcp", "192.168.1.20:443"}, 2, "the port on the Internet's side is missing"},
		{"add/two ports for IPv6", []string{"add", "tcp", "8443", "[2001:db8::5]:443"}, 2, "nothing is translated for IPv6"},
		{"add/for", []string{"add", "tcp", "8443", "192.168.1.20:443", "--for", "soon"}, 2, `--for: "soon" is not a time from 1s to 3650d, like 90m, 24h or 7d, nor forever`},
		{"list/no daemon", []string{"list", "--config", good}, 1, "portcullis is not running here (no answer on "},
		{"status/no daemon", []string{"status", "--config", good}, 1, "portcullis is not running here (no answer on "},
		{"delete/nothing to delete", []string{"delete", "--config", good}, 2, "nothing to delete: give an ID, a protocol and port, or --all"},
		{"delete/no id", []string{"delete", "--config", good, "x"}, 2, `"x" is not a mapping ID`},
		{"delete/bad port", []string{"delete", "--config", good, "tcp", "70000"}, 2, `"70000" is not a port from 1 to 65535`},
		{"delete/icmp", []string{"delete", "--config", good, "icmp", "80"}, 2, `"icmp" is neither tcp nor udp, nor a mapping ID`},
		{"delete/all and more", []string{"delete", "--config", good, "--all", "3"}, 2, "no further arguments"},
		{"delete/no daemon", []string{"delete", "--config", good, "7"}, 1, "portcullis is not running here (no answer on "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := call(t, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.says) {
				t.Errorf("exit %d, want %d and %q\n%s%s", code, c.code, c.says, out, errs)
			}
			if (code != exitDone) != (out == "") || (code != exitDone) != (errs != "") {
				t.Errorf("exit %d with %q on standard output, %q on standard error", code, out, errs)
			}
			if code == exitUsage && strings.Count(errs, "\n") > 2 {
				t.Errorf("what was wrong and how it is right take more than two lines: %q", errs)
			}
		})
	}
	code, out, _ := call(t, "version", "--json")
	var b build
	if err := json.Unmarshal([]byte(out), &b); code != 0 || err != nil || b.Version != version || b.Go == "" {
		t.Errorf("version --json: %q, %v", out, err)
	}
}

// TestListIsHarmless: a client's description cannot play with the terminal.
func TestListIsHarmless(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	m := control.Mapping{ID: 7, Protocol: "udp", ExternalPort: 3074, InternalIP: "192.168.1.9", InternalPort: 3074, ClientHost: "tv\a",
		Via: "upnp", Enabled: true, ExpiresIn: 3599, Description: "\x1b[2Jgame\r\n\u202eevil\t"}
	if err := printMappings(&out, []control.Mapping{m}, 0); err != nil {
		t.Fatal(err)
	}
	want := "ID  PORT      TARGET            HOST  VIA   EXPIRES  PACKETS  BYTES  DESCRIPTION\n" +
		"7   3074/udp  192.168.1.9:3074  tv\ufffd   upnp  59m59s   0        0      \ufffd[2Jgame\ufffd\ufffd\ufffdevil\ufffd\n"
	if out.String() != want {
		t.Errorf("printed\n%q, want\n%q", out.String(), want)
	}
}

func TestDeletions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		all  bool
		args string
		want string
	}{
		{true, "", "[{0 true  0}]"},
		{false, "udp 3074", "[{0 false udp 3074}]"},
		{false, "7 8", "[{7 false  0} {8 false  0}]"},
		{false, "0", "error"}, {false, "-1", "error"}, {false, "tcp", "error"}, {false, "tcp 0", "error"}, {false, "tcp 80 81", "error"}, {false, "", "error"},
	} {
		got, err := deletions(c.all, strings.Fields(c.args))
		text := fmt.Sprint(got)
		if err != nil {
			text = "error"
		}
		if text != c.want {
			t.Errorf("%v %q: %s (%v), want %s", c.all, c.args, text, err, c.want)
		}
	}
}
