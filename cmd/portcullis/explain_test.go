package main

import (
	"strings"
	"testing"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
)

// TestExplainedPlainly: a lease is told as in the list, and a line to type is whole.
func TestExplainedPlainly(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	opens := control.Explained{Protocol: "udp", Family: 4, ExternalPort: 3074, InternalPort: 3074, ExpiresIn: 168 * 3600, Verdict: control.Verdict{Action: "allow", Why: "so"}}
	waits := control.Explained{Protocol: "udp", Family: 4, InternalPort: 3074, Pending: 7, Verdict: control.Verdict{Action: "ask", Why: "so"}}
	for _, e := range []control.Explained{opens, waits} {
		if err := printExplained(&out, e, written{config: " --config p.toml"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"as external port 3074 for 7d: so\n", "portcullis approve --config p.toml 7, or deny\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestPageWaitsAloud: who starts the page before the daemon reads that it goes on.
func TestPageWaitsAloud(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := mayAsk(t.Context(), &cmdline.Call{Err: &out}, t.TempDir()+"/none.sock"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "; the page waits for it\n") {
		t.Errorf("it says %q", out.String())
	}
}
