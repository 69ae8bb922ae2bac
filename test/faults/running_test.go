package faults

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// edited replaces text in the daemon's configuration file.
func edited(t *testing.T, r *testrig.Rig, old, text string) {
	t.Helper()
	is, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(is), old) {
		t.Fatalf("%q is not in %s", old, is)
	}
	if err := os.WriteFile(r.Daemon.Config, []byte(strings.Replace(string(is), old, text, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDoctorRunning: what is judged is the configuration that the daemon runs, and what the
// file has since is said, with how it takes effect.
func TestDoctorRunning(t *testing.T) {
	t.Parallel()
	const chain = `accept_chain = "` + lab.FirewallChain + `"`
	r := testrig.StartWith(t, testrig.Network(t, "a"), strings.Replace(lab.Settings, chain, "", 1))
	s := examinedRunning(t, r)
	if !s.has("daemon", "ok", r.Daemon.Config) || !s.has("path", "failure", chain) {
		t.Errorf("at first: %+v", s)
	}
	if lines := s.remedy(t, "path", "failure"); lines[len(lines)-1] != "then: systemctl restart portcullis" {
		t.Errorf("the remedy is %q", lines)
	}
	edited(t, r, "[firewall]", "[firewall]\n"+chain)
	s = examinedRunning(t, r)
	if s.OK || !s.has("path", "failure", "the file has it already", "systemctl restart portcullis") ||
		!s.has("daemon", "warning", "has been changed since (firewall.accept_chain)", "systemctl restart portcullis") {
		t.Errorf("the file has been corrected, and the daemon runs as before: %+v", s)
	}
	if err := r.Daemon.Halt(); err != nil {
		t.Fatal(err)
	}
	if s := examinedRunning(t, r); !s.OK || !s.has("daemon", "warning", "does not run", r.Daemon.Config, "portcullis run --config "+r.Daemon.Config) || !s.has("path", "ok") {
		t.Errorf("without a daemon: %+v", s)
	}
	r.Restart(t)
	if s := examinedRunning(t, r); !s.OK || !s.has("daemon", "ok", "judged is what the daemon runs") || !s.has("path", "ok") {
		t.Errorf("restarted: %+v", s)
	}

	edited(t, r, "[state]", "[limits]\nmappings = 1\nmappings_per_client = 1\n[state]")
	if s := examinedRunning(t, r); !s.has("daemon", "warning", "limits.mappings", "limits.mappings_per_client", "portcullis reload") || s.has("daemon", "warning", "restart") {
		t.Errorf("a key that a running daemon takes over: %+v", s)
	}
	if err := r.Point(t, "a", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(6000)); err != nil {
		t.Fatal(err)
	}
	if s := examinedRunning(t, r); !s.OK || s.has("quota", "failure") || s.has("clock", "warning") && s.Findings[len(s.Findings)-1].ID != "clock" {
		t.Errorf("1024 may be open, and the clock comes last: %+v", s)
	}
	reloaded(t, r)
	if s := examinedRunning(t, r); s.OK || !s.has("daemon", "ok") || !s.has("quota", "failure", "1 of 1 mappings", "then: portcullis reload") || !s.has("quota_client", "warning", "192.168.77.10 has 1 of 1") {
		t.Errorf("the only mapping is taken: %+v", s)
	}

	// The file of somebody else, with the same socket.
	is, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.toml")
	if err := os.WriteFile(other, []byte(strings.Replace(string(is), chain, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, _ := examine(t, r.Network, other); !s.has("daemon", "warning", r.Daemon.Config, other) || !s.has("path", "ok") {
		t.Errorf("called with another file: %+v", s)
	}
	edited(t, r, "[state]", "[limit]\n[state]")
	if s := examinedRunning(t, r); !s.has("daemon", "warning", "would not start", `"limit"`) || !s.has("path", "ok") {
		t.Errorf("the file is not valid any more: %+v", s)
	}
}

// TestDoctorQuotas: quotas that are full are named, of a LAN and of a rule as well, and what
// was refused lately with the rule that allows it, which does.
func TestDoctorQuotas(t *testing.T) {
	t.Parallel()
	r := testrig.StartWith(t, testrig.Network(t, "a", "b"), lab.Settings+`
[limits]
mappings_per_lan = 2
[[rule]]
name = "games"
action = "allow"
internal_ports = ["6000-6010"]
max_mappings = 1
max_mappings_total = 2
`)
	a, b := r.Point(t, "a", lab.IGD1, lab.WANIP1), r.Point(t, "b", lab.IGD1, lab.WANIP1)
	web := lab.Mapping{Protocol: "TCP", External: 8080, Internal: 8080, Lease: time.Hour}
	if err := a.Add(t.Context(), web); err == nil {
		t.Error("8080 is open without a rule")
	}
	if s := examinedRunning(t, r); !s.has("refused", "ok", "1 request was refused") || s.has("quota_lan", "warning") || s.has("quota_rule", "warning") {
		t.Errorf("nothing is full: %+v", s)
	}
	if err := a.Add(t.Context(), udp(6000)); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(t.Context(), udp(6001)); err != nil {
		t.Fatal(err)
	}
	s := examinedRunning(t, r)
	for id, want := range map[string][]string{
		"quota_lan":         {"br-lan has 2 of 2 mappings", "mappings_per_lan", "then: portcullis reload"},
		"quota_rule":        {`the rule "games" allows 2 of 2 mappings`, "max_mappings_total"},
		"quota_rule_client": {`the rule "games" allows ` + r.Host("a").Addr.String() + " 1 of 1", r.Host("b").Addr.String() + " 1 of 1"},
	} {
		if !s.has(id, "warning", want...) {
			t.Errorf("%s: %+v", id, s)
		}
	}
	lines := s.remedy(t, "refused_lately", "ok")
	if !s.OK || !s.has("refused_lately", "ok", r.Host("a").Addr.String()+" asked for tcp port 8080 by upnp", r.Daemon.Config) || lines[len(lines)-1] != "then: portcullis reload --config "+r.Daemon.Config {
		t.Fatalf("the refusal: %+v", s)
	}
	edited(t, r, "mappings_per_lan = 2", "mappings_per_lan = 3")
	const games = "[[rule]]\nname = \"games\""
	edited(t, r, games, strings.Join(lines[1:len(lines)-1], "\n")+"\n"+games)
	reloaded(t, r)
	if err := a.Add(t.Context(), web); err != nil {
		t.Errorf("with the rule that was printed: %v", err)
	}
}

// TestOwnerWithABrokenFile: a mistake in the file does not keep the owner from the daemon.
func TestOwnerWithABrokenFile(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	edited(t, r, "[state]", "[limit]\n[state]")
	for _, command := range []string{"status", "list"} {
		cmd := exec.Command(testrig.Exe, command, "--json", "--config", r.Daemon.Config)
		var out, complaint strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &complaint
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v: %s", command, err, &complaint)
		}
		if strings.Count(complaint.String(), "\n") != 1 || !strings.Contains(complaint.String(), r.Daemon.Config+":") || !json.Valid([]byte(out.String())) {
			t.Errorf("%s prints %q, %q", command, &out, &complaint)
		}
	}
	cmd := exec.Command(testrig.Exe, "status", "--config", r.Daemon.Config+".not")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no such file") {
		t.Errorf("a file that is not there: %v, %s", err, out)
	}
}

// TestDoctorNoCircle: where both nftables and iptables drop, doctor leads to one
// configuration, whatever there was before, and it works.
func TestDoctorNoCircle(t *testing.T) {
	t.Parallel()
	const chain = `accept_chain = "` + lab.FirewallChain + `"`
	const iptables, native = `backend = "iptables"`, `accept_chain = "inet filter forward"`
	n := chainsHome(t, "nft")
	nft(t, &testrig.Rig{Network: n}, besideIPTables)
	for _, before := range []string{"", iptables, native} {
		s, failed := examined(t, n, strings.Replace(lab.Settings, chain, before, 1))
		for _, want := range []string{iptables, native} {
			if has := s.has("path", "failure", want); !failed || has == (want == before) {
				t.Errorf("with %q it says %q: %v; %+v", before, want, has, s)
			}
		}
	}
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, chain, iptables+"\n"+native, 1))
	if s := examinedRunning(t, r); !s.OK || !s.has("path", "ok") || !s.has("path6", "ok") {
		t.Errorf("with both: %+v", s)
	}
	opened(t, r, 6000)
	pinhole(t, r.Host("a"))
	both(t, r, r.Host("a"))
}
