package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestPageTwice: who has lost the link and starts the page again reads where to find another.
func TestPageTwice(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out strings.Builder
	call := &cmdline.Call{Given: map[string]string{"listen": l.Addr().String(), "config": absent(t)}, Out: &out, Err: &out}
	if err := runWeb(t.Context(), call); err == nil || !strings.Contains(err.Error(), "is taken; a page that is served there already prints another link when it gets SIGUSR1") {
		t.Errorf("it says %v and %q", err, &out)
	}
}

// absent is a configuration whose socket nobody answers on.
func absent(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "portcullis.toml")
	if err := os.WriteFile(file, []byte("[control]\nsocket = \""+filepath.Join(t.TempDir(), "none.sock")+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestAskedFirst: who asks what would come of it is not sent to a list on which nothing stands.
func TestAskedFirst(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	e := control.Explained{Protocol: "udp", Family: 4, InternalPort: 3074, Verdict: control.Verdict{Action: "ask", Why: "the owner has to approve this first; `portcullis pending` lists it"}}
	if err := printExplained(&out, e, written{}); err != nil {
		t.Fatal(err)
	}
	if want := "would be refused: the owner has to approve this first; when it has asked, `portcullis pending` lists it\n"; !strings.Contains(out.String(), want) {
		t.Errorf("it says %q", out.String())
	}
}

// TestQuotaRefused: a quota that is full is said with what to do, and what is possible by now as such.
func TestQuotaRefused(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	full := control.Refused{Protocol: "udp", Family: 4, Verdict: control.Verdict{Action: "deny", Reason: "client-quota", Why: "full"}}
	raised := full
	raised.AllowedBy = "so"
	list := []control.RefusedDevice{{Refused: []control.Refused{full, raised}}}
	if err := printRefused(&out, list, written{file: "p.toml", reload: "portcullis reload"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"raise the limit in p.toml, and run `portcullis reload`\n", "It would be opened now, if the device asked again: so\n"} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("not once %q in\n%s", want, out.String())
		}
	}
}
