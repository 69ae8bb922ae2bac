package abuse

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestSandbox (K11): what the kernel says of every thread of a running daemon, and that
// `status` says the same. Where iptables is the backend its programs need more.
func TestSandbox(t *testing.T) {
	t.Parallel()
	landlock, inWords := 0, ""
	if abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno == 0 {
		landlock, inWords = int(abi), fmt.Sprint(", Landlock ", abi)
	}
	for name, c := range map[string]struct {
		backend, more string
		held          []string
	}{
		"nftables": {"nftables", "", []string{"CAP_NET_ADMIN"}},
		"low port": {"nftables", "[upnp]\nhttp_port = 80\n", []string{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"}},
		"iptables": {"iptables", "", []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			settings := strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, `backend = "`+c.backend+`"`, 1)
			r := &rig{testrig.StartWith(t, n, settings+c.more)}
			s, err := r.Owner.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if x := s.Sandbox; x.Mode != "single" || !slices.Equal(x.Capabilities, c.held) || !x.NoNewPrivs || !x.Seccomp || x.Dumpable ||
				x.Landlock != landlock || (len(x.Missing) > 0) != (landlock == 0) {
				t.Errorf("status: %+v", x)
			}
			line := testrig.On(t, r.Gateway, testrig.Exe, "status", "--config", r.Daemon.Config)
			if want := "single: " + strings.Join(c.held, ", ") + ", no new privileges, seccomp" + inWords + ", not dumpable"; !strings.Contains(line, want) {
				t.Errorf("status says\n%s\nand not %q", line, want)
			}
			confined(t, r, c.held)
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.Daemon.Pid()))
			if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
				t.Errorf("limits: %v\n%s", err, limits)
			}
			if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
				t.Fatal(err)
			}
			if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
				t.Error("the mapping leads nowhere")
			}
		})
	}
}

// numbers are those of capabilities.
var numbers = map[string]uint{
	"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW,
}

// confined compares what the kernel says of each thread.
func confined(t *testing.T, r *rig, held []string) {
	t.Helper()
	var bits uint64
	for _, name := range held {
		bits |= 1 << numbers[name]
	}
	set := fmt.Sprintf("%016x", bits)
	want := map[string]string{
		"CapInh": fmt.Sprintf("%016x", 0), "CapPrm": set, "CapEff": set, "CapBnd": set, "CapAmb": fmt.Sprintf("%016x", 0),
		"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "1",
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.Daemon.Pid()))
	if err != nil || len(threads) < 3 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		for _, line := range strings.Split(string(text), "\n") {
			key, value, _ := strings.Cut(line, ":")
			if w, asked := want[key]; asked && strings.TrimSpace(value) != w {
				t.Errorf("%s has %s, want %s", name, line, w)
			}
		}
	}
}

// TestSandboxOff: without it the daemon goes on with what it was started with, and says so.
func TestSandboxOff(t *testing.T) {
	t.Parallel()
	r := start(t, "[sandbox]\nmode = \"off\"\n")
	r.Logged(t, "sandbox is off")
	var s control.Status
	text := testrig.On(t, r.Gateway, testrig.Exe, "status", "--json", "--config", r.Daemon.Config)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if x := s.Sandbox; x.Mode != "off" || x.Seccomp || x.Landlock != 0 || x.NoNewPrivs || !x.Dumpable || len(x.Capabilities) < 3 {
		t.Errorf("status: %+v", x)
	}
}
