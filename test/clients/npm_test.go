package clients

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"portcullis/internal/lab"
)

// TestNPM: clients from npm. nat-port-mapper 4.0.5 deletes by UPnP with an empty
// protocol, which no gateway can know the meaning of (601): there the owner closes
// the port.
func TestNPM(t *testing.T) {
	needNPM(t)
	for _, c := range []struct {
		name, script, via string
		unmaps            bool
		more              []string // arguments
	}{
		{"npm @achingbrain/nat-port-mapper", "npm/port-mapper.mjs", upnp, false, nil},
		{"npm @achingbrain/nat-port-mapper, NAT-PMP", "npm/port-mapper.mjs", natpmp, true, nil},
		{"npm @silentbot1/nat-api", "npm/nat-api.mjs", upnp, true, nil},
		{"npm @silentbot1/nat-api, NAT-PMP", "npm/nat-api.mjs", natpmp, true, nil},
		{"npm nat-upnp", "npm/nat-upnp.cjs", upnp, true, nil},
		{"npm nat-upnp-ts", "npm/nat-upnp-ts.cjs", upnp, true, []string{"nat-upnp-ts"}},
		{"npm nat-upnp-rejetto", "npm/nat-upnp-ts.cjs", upnp, true, []string{"nat-upnp-rejetto"}},
		{"npm @runonflux/nat-upnp", "npm/nat-upnp-ts.cjs", upnp, true, []string{"@runonflux/nat-upnp"}},
		{"npm nat-pmp", "npm/nat-pmp.cjs", natpmp, true, nil},
		{"npm nat-puncher, NAT-PMP", "npm/nat-puncher.cjs", natpmp, true, nil},
		{"npm nat-puncher, PCP", "npm/nat-puncher.cjs", pcp, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.name)
			args := append([]string{c.script, r.host.Addr.String(), c.via, lab.GatewayLAN.String()}, c.more...)
			child := r.spawn(exec.Command("node", args...))
			m := r.maps(1, 30*time.Second, c.via)[0]
			r.arrives(m, false)
			if c.name != "npm nat-puncher, NAT-PMP" { // which does not ask for it
				child.learns(lab.GatewayWAN)
			}
			child.finish()
			if !c.unmaps {
				r.closeAll()
			}
			r.gone(m)
		})
	}
}

// TestNATPuncherProbe: nat-puncher finds out which protocols there are by mapping
// a port in each at once, which it leaves to run out after 120 s.
func TestNATPuncherProbe(t *testing.T) {
	needNPM(t)
	r := start(t, "npm nat-puncher, probe")
	child := r.spawn(exec.Command("node", "npm/nat-puncher.cjs", r.host.Addr.String(), "probe"))
	list := r.maps(3, 30*time.Second, natpmp, pcp, upnp)
	for _, m := range list {
		if want := map[uint16]string{55555: natpmp, 55556: pcp, 55557: upnp}[m.ExternalPort]; m.Via != want || m.ExpiresIn > 120 {
			t.Errorf("listed %+v, want it by %q", m, want)
		}
		r.arrives(m, false)
	}
	child.finish()
	r.gone(list[0])
}

// needNPM skips the test when the clients are not installed; under CI it fails.
func needNPM(t *testing.T) {
	t.Helper()
	need(t, "node")
	if _, err := os.Stat("npm/node_modules"); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("the npm clients are not installed; test/install does that")
	}
	t.Skip("the npm clients are not installed; test/install does that")
}
