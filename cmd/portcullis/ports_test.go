package main

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the list of ports into the manual")

// TestPortsManual: portcullis.toml(5) has the list that the command prints.
func TestPortsManual(t *testing.T) {
	t.Parallel()
	const page = "../../etc/man/portcullis.toml.5"
	const begin, end = ".\\\" ports\n.Bd -literal\n", ".Ed\n.\\\" end of ports\n"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	list, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatal("the manual has no list of ports")
	}
	want := portsTable()
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if list != want {
		t.Errorf("the list in the manual is\n%s\nwant\n%s", list, want)
	}
}

// TestPorts: what is said of one port, and of all.
func TestPorts(t *testing.T) {
	t.Parallel()
	for port, want := range map[string]string{
		"445": "tcp port 445 is Windows file sharing (SMB): it is never opened\n" +
			"udp port 445 is Windows file sharing (SMB): it is never opened\n",
		"22": "tcp port 22 is remote login (SSH): it is opened only by a rule that names it in internal_ports and in external_ports\n" +
			"udp port 22 is remote login (SSH): it is opened only by a rule that names it in internal_ports and in external_ports\n",
		"5000": "tcp port 5000 is NAS administration: it is opened only by a rule that names it in internal_ports; outside, the number is free\n" +
			"udp port 5000: it is opened as policy.default and the rules say\n",
		"29184": "tcp port 29184 is kept for hosts whose own port is mapped to another: outside it is never opened, inside as policy.default and the rules say\n" +
			"udp port 29184 is kept for hosts whose own port is mapped to another: outside it is never opened, inside as policy.default and the rules say\n",
	} {
		if code, out, errs := call(t, "ports", port); code != 0 || out != want {
			t.Errorf("exit %d\n%s%s, want\n%s", code, out, errs, want)
		}
	}
	for _, wrong := range []string{"0", "65536", "http"} {
		if code, out, errs := call(t, "ports", wrong); code != exitUsage || out != "" || !strings.Contains(errs, `"`+wrong+`" is not a port from 1 to 65535`) {
			t.Errorf("exit %d, %q, %q", code, out, errs)
		}
	}
	var all []closedPorts
	if code, out, _ := call(t, "ports", "--json"); code != 0 || json.Unmarshal([]byte(out), &all) != nil || len(all) < 100 || all[0].Opens != "never" || all[0].First != 7 {
		t.Errorf("exit %d, %s", code, out)
	}
	var one []portVerdict
	if code, out, _ := call(t, "ports", "8080", "--json"); code != 0 || json.Unmarshal([]byte(out), &one) != nil || len(one) != 2 ||
		one[0] != (portVerdict{"tcp", "by rule", "by default", "a web server or an administration page"}) || one[1] != (portVerdict{"udp", "by default", "by default", ""}) {
		t.Errorf("exit %d, %s", code, out)
	}
}
