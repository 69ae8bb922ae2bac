package faults

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// explained asks the program what would come of a request.
func explained(t *testing.T, r *testrig.Rig, args ...string) (e control.Explained) {
	t.Helper()
	out, ok := said(t, append([]string{"explain", "--json", "--config", r.Daemon.Config}, args...)...)
	if err := json.Unmarshal([]byte(out), &e); err != nil || !ok {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return e
}

// TestExplain: the owner hears beforehand what then happens, of a host by its address or by its
// MAC address; and nothing comes of the question, in the kernel, in the table or in the log.
func TestExplain(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	a, b := n.Host("a"), n.Host("b")
	r := testrig.Start(t, n, fmt.Sprintf("[limits]\nmappings_per_client = 2\n[pcp]\nnatpmp = false\n"+
		"[[rule]]\nname = \"web of a\"\naction = \"allow\"\nclients = [%q]\ninternal_ports = [\"8080\"]\n", a.MAC))
	c := opened(t, r, 6000)
	other := r.Point(t, "b", lab.IGD1, lab.WANIP1) // so that the kernel knows who b is

	before, log := r.World(t), r.Daemon.Log()
	for _, q := range []struct {
		args, want string // action, reason, rule, wall, whether a rule is printed
	}{
		{"--client " + a.Addr.String() + " --port 8080 --protocol tcp", "allow  web of a false false"},
		{"--client " + a.MAC.String() + " --port 8080 --protocol tcp --via pcp", "allow  web of a false false"},
		{"--client " + a.Addr6.String() + " --port 8080 --protocol tcp --via pcp", "allow  web of a false false"},
		{"--client " + a.Addr.String() + " --port 6000 --protocol udp", "allow   false false"},
		{"--client " + b.Addr.String() + " --port 8080 --protocol tcp", "deny privileged-port  false true"},
		{"--client " + b.Addr.String() + " --port 445 --protocol tcp", "deny forbidden-port  true false"},
		{"--client " + b.Addr.String() + " --port 6000 --protocol udp", "deny port-taken  false false"},
		{"--client " + b.Addr.String() + " --port 6000 --external 0 --protocol udp", "allow   false false"},
		{"--client " + lab.GatewayLAN.String() + " --port 6000 --protocol udp", "deny gateway-target  true false"},
	} {
		e := explained(t, r, strings.Fields(q.args)...)
		if got := fmt.Sprint(e.Action, " ", e.Reason, " ", e.Rule, " ", e.Wall, " ", e.Add != ""); got != q.want {
			t.Errorf("%s: %s, want %s (%s)", q.args, got, q.want, e.Why)
		}
		if e.Why == "" || e.Note != "" || e.Client.Host != "" || e.Action == "allow" && e.ExpiresIn == 0 {
			t.Errorf("%s: %+v", q.args, e)
		}
	}
	for args, want := range map[string]string{
		"--client 10.9.9.9 --port 1 --protocol tcp":                                "10.9.9.9 is in no network that is served: ",
		"--client 02:00:00:00:00:77 --port 1 --protocol tcp":                       "no address of 02:00:00:00:00:77 is known now",
		"--client " + a.Addr.String() + " --port 6000 --protocol udp --via natpmp": "NAT-PMP is off: [pcp] natpmp = false, so nobody is answered",
		"--client " + a.Addr.String() + " --port 0 --protocol udp":                 `"0" is not a port`,
		"--client " + a.Addr.String() + " --port 1 --protocol sctp":                `"sctp" is not tcp or udp`,
		"--protocol tcp": "missing: --client, --port",
		"--client " + a.Addr.String() + " --port 1 --protocol tcp --external 70000": `"70000" is not a port`,
		"--client " + a.Addr.String() + " --port 1 --protocol tcp --via owner":      `"owner" is not upnp, natpmp or pcp`,
		"--client " + a.Addr.String() + "%br-lan --port 1 --protocol tcp":           "neither an address nor a MAC address",
	} {
		if out, ok := said(t, append([]string{"explain", "--config", r.Daemon.Config}, strings.Fields(args)...)...); ok || !strings.Contains(out, want) {
			t.Errorf("%s: %s, want %s", args, out, want)
		}
	}
	r.Unchanged(t, before)
	if now := r.Daemon.Log(); now != log {
		t.Errorf("the log has\n%s", strings.TrimPrefix(now, log))
	}
	if s, err := r.Owner.Status(t.Context()); err != nil || s.Denied != 0 || s.LastRefused != nil {
		t.Errorf("%+v, %v", s, err)
	}

	if e := explained(t, r, "--client", "192.168.77.99", "--port", "6000", "--external", "0", "--protocol", "udp"); e.Note != "the MAC address of 192.168.77.99 is not known now, so rules for a MAC address were not looked at" {
		t.Errorf("of nobody: %+v", e)
	}

	// As it was told, so it is.
	web := lab.Mapping{Protocol: "TCP", External: 8080, Internal: 8080, Lease: time.Hour}
	if err := other.Add(t.Context(), web); err == nil {
		t.Error("b has a web server")
	}
	if err := other.Add(t.Context(), udp(6000)); err == nil {
		t.Error("b has a's port")
	}
	if err := c.Add(t.Context(), web); err != nil {
		t.Error(err)
	}
	if e := explained(t, r, "--client", a.Addr.String(), "--port", "6001", "--protocol", "udp"); e.Reason != "client-quota" || e.Add != "" {
		t.Errorf("the third: %+v", e)
	}
	if out, ok := said(t, "add", "--config", r.Daemon.Config, "tcp", "445", a.Addr.String()+":445"); ok {
		t.Errorf("the owner may open SMB: %s", out) // who knows, and is not listed below
	}
	testrig.Eventually(t, soon, "the refusals are known", func() bool {
		list, err := r.Owner.Refused(t.Context())
		return err == nil && len(list) == 1 && list[0].Client.MAC == b.MAC.String() && len(list[0].Refused) == 2 &&
			list[0].Refused[0].Reason == "port-taken" && list[0].Refused[0].Add == "" && list[0].Refused[1].Add != ""
	})
}

// TestEventsByCommand: `events` prints what happens as it happens, ends well when it is
// interrupted, and does not keep the daemon from stopping.
func TestEventsByCommand(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	c := opened(t, r, 6000)
	follow := func(args ...string) (*exec.Cmd, *bufio.Scanner, *bytes.Buffer) {
		cmd := exec.Command(testrig.Exe, append([]string{"events", "--config", r.Daemon.Config}, args...)...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd, bufio.NewScanner(out), &errs
	}
	// It is not known when they have begun; so something happens until both have said so.
	cmd, lines, _ := follow("--json")
	text, words, complaint := follow()
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		lines.Scan()
		words.Scan()
	}()
	testrig.Eventually(t, soon, "both have begun", func() bool {
		if err := c.Add(t.Context(), udp(6000)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-begun:
			return true
		default:
			return false
		}
	})
	if err := c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: 22, Internal: 22, Lease: time.Hour, Description: "a\x1b[31mshell"}); err == nil {
		t.Error("22 is open")
	}
	var e control.Event
	for e.Event != "denied" {
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &e) != nil || e.Event != "renewed" && e.Event != "denied" {
			t.Fatalf("it says %s", lines.Text())
		}
	}
	if _, err := time.Parse(time.RFC3339, e.Time); err != nil || e.Reason != "privileged-port" || e.Why == "" ||
		e.Client.Address != r.Host("a").Addr.String() || e.Mapping.InternalPort != 22 || e.Mapping.Via != "upnp" {
		t.Errorf("%v; %s", err, lines.Text())
	}
	for !strings.Contains(words.Text(), "denied") {
		if !words.Scan() {
			t.Fatal("the words end")
		}
	}
	if line := words.Text(); !strings.Contains(line, "tcp 22 to "+r.Host("a").Addr.String()+":22  by upnp  (a\ufffd[31mshell)  internal tcp port 22 is") {
		t.Errorf("it says %q", line)
	}

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted, it ends with %v", err)
	}
	if err := r.Daemon.Stop(); err != nil {
		t.Errorf("the daemon does not stop: %v", err)
	}
	for words.Scan() {
	}
	if err := text.Wait(); err == nil || !strings.Contains(complaint.String(), "the daemon has stopped") {
		t.Errorf("when the daemon stops, it ends with %v: %s", err, complaint)
	}
}
