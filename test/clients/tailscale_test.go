package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
)

// tailscales are the versions of Tailscale's net/portmapper, and how the program
// in the directory tailscale is built with each. Version 1.102.2 takes a new
// nonce for each PCP packet, so that it can neither renew nor unmap where nonces
// are strict; 1.104.5 keeps its nonce, and ignores a reply with another one. Both
// wait 250 ms for a mapping by NAT-PMP; where the machine is slower they take one by
// UPnP, and forget the first. They wait as long for PCP, and forget their nonce.
var tailscales = map[string]struct {
	modfile, toolchain string
	keepsNonce         bool
}{
	"1.102.2": {"go.mod", "local", false},
	"1.104.5": {"next.mod", "go1.27.3", true},
}

func TestTailscale(t *testing.T) {
	dir := t.TempDir()
	for version, how := range tailscales {
		program := filepath.Join(dir, version)
		build := exec.Command("go", "build", "-modfile="+how.modfile, "-o", program, ".")
		build.Dir = "tailscale"
		build.Env = append(os.Environ(), "GOTOOLCHAIN="+how.toolchain, "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build for %s: %v\n%s", version, err, out)
		}
		for _, x := range []struct{ name, protocols, more, via string }{
			{"", "upnp natpmp pcp", "", natpmp + " " + upnp},
			{", PCP", "pcp", "", pcp},
			{", NAT-PMP", "natpmp", "", natpmp},
			{", UPnP", "upnp", "", upnp},
			{", PCP, strict nonces", "pcp", strict, pcp},
		} {
			if x.more != "" && !how.keepsNonce {
				continue
			}
			name := "tailscale " + version + x.name
			t.Run(name, func(t *testing.T) {
				r := startSpeaking(t, name, "", x.more)
				c := r.spawn(exec.Command(program, strings.Fields(x.protocols)...))
				if x.more == strict {
					r.forgets(c)
				}
				c.learns(lab.GatewayWAN)
				list := r.maps(1, time.Second, strings.Fields(x.via)...)
				m := list[len(list)-1]
				r.arrives(m, false)
				c.finish()
				if len(list) > 1 { // it forgot the first
					r.eventually(20*time.Second, "what it took goes", func() bool { return len(r.list()) < len(list) })
					r.closeAll()
				}
				r.gone(m)
			})
		}
	}
}

// forgets waits until the client has its mapping. What it was granted too late for
// it, it cannot own where nonces are strict: the owner closes that, and it asks again.
func (r *rig) forgets(c *child) {
	r.t.Helper()
	var granted time.Time
	r.eventually(60*time.Second, "it takes a mapping", func() bool {
		switch has := len(r.list()) > 0; {
		case strings.Contains(c.out.String(), "external "):
			return true
		case !has:
			granted = time.Time{}
		case granted.IsZero():
			granted = time.Now()
		case time.Since(granted) > 5*time.Second:
			r.closeAll()
		}
		return false
	})
}
