package faults

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// said runs a command of the program as its owner does, and returns what it prints and whether
// it did what it was told.
func said(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command(testrig.Exe, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		t.Fatal(err)
	}
	return out.String(), err == nil
}

// advice is what `refused` tells its reader to do.
var advice = regexp.MustCompile("(?s)To allow it, add this (?:to|above the rule \"([^\"]+)\" in) (\\S+), and run `portcullis ([^`]+)`:\n\n(.*?\n)\n")

// obey does what it says, as somebody would who knows nothing else.
func obey(t *testing.T, text string) {
	t.Helper()
	a := advice.FindStringSubmatch(text)
	if a == nil {
		t.Fatalf("it does not say what to do:\n%s", text)
	}
	above, file, rule := a[1], a[2], a[4]
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	now := string(old) + "\n" + rule
	if above != "" {
		head := "[[rule]]\nname = \"" + above + "\""
		if !strings.Contains(string(old), head) {
			t.Fatalf("there is no rule %q in\n%s", above, old)
		}
		now = strings.Replace(string(old), head, rule+"\n"+head, 1)
	}
	if err := os.WriteFile(file, []byte(now), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := said(t, "check", "--config", file); !ok {
		t.Fatalf("check refuses the rule that was printed:\n%s\n%s", out, now)
	}
	if out, ok := said(t, strings.Fields(a[3])...); !ok || !strings.Contains(out, "reloaded: rule") {
		t.Fatalf("the reload says\n%s", out)
	}
}

// TestRefusedToWorking: from a console that is refused to one that works with nothing but what
// the program prints, whatever it was that refused it and in whichever protocol it asks.
func TestRefusedToWorking(t *testing.T) {
	t.Parallel()
	upnp := func(t *testing.T, r *testrig.Rig) func() bool {
		c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
		return func() bool {
			return c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: 8080, Internal: 8080, Lease: time.Hour, Description: "a console"}) == nil
		}
	}
	pinhole := func(t *testing.T, r *testrig.Rig) func() bool {
		a := r.Host("a")
		return func() bool {
			_, err := mapPCP(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 8080, Lease: time.Hour})
			return err == nil
		}
	}
	const wide = "[[rule]]\nname = \"all high\"\naction = \"allow\"\ninternal_ports = [\"1024-65535\"]\n"
	const never = "[[rule]]\nname = \"nothing\"\naction = \"deny\"\n"
	for name, c := range map[string]struct {
		config string
		asks   func(*testing.T, *testrig.Rig) func() bool
		six    bool
	}{
		"no rule":                 {"", upnp, false},
		"a rule that is too wide": {wide, upnp, false},
		"a rule that denies":      {wide + never, upnp, false},
		"nothing by default":      {"[policy]\ndefault = \"deny\"\n", pinhole, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "a"), c.config)
			ask := c.asks(t, r)
			if ask() {
				t.Fatal("it is not refused")
			}
			var text string
			testrig.Eventually(t, soon, "the refusal is listed", func() bool {
				text, _ = said(t, "refused", "--config", r.Daemon.Config)
				return strings.Contains(text, "8080")
			})
			if status, _ := said(t, "status", "--config", r.Daemon.Config); !strings.Contains(status, "refused") || !strings.Contains(status, "(portcullis refused)") {
				t.Errorf("the status does not lead there:\n%s", status)
			}
			obey(t, text)
			if now, _ := said(t, "refused", "--config", r.Daemon.Config); !strings.Contains(now, "It would be opened now, if the device asked again: the rule ") || strings.Contains(now, "[[rule]]") {
				t.Errorf("with the rule in force:\n%s", now)
			}
			if !ask() {
				t.Fatal("it is refused again")
			}
			a := r.Host("a")
			if c.six && !r.Reaches(t, "TCP", lab.InternetOne6, netip.AddrPortFrom(a.Addr6, 8080), a, soon) ||
				!c.six && !r.Passes(t, "TCP", 8080, a, 8080) {
				t.Error("no packet arrives")
			}
			testrig.Eventually(t, soon, "the rule is not asked for again", func() bool {
				text, ok := said(t, "refused", "--config", r.Daemon.Config)
				return ok && !strings.Contains(text, "8080")
			})
		})
	}
}
