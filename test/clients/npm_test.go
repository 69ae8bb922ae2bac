package clients

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestNPM: three control points from npm. nat-port-mapper 4.0.5 deletes with an
// empty protocol, which no gateway can know the meaning of (601): there the owner
// closes the port.
func TestNPM(t *testing.T) {
	need(t, "node")
	if _, err := os.Stat("npm/node_modules"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the npm clients are not installed; test/install does that")
		}
		t.Skip("the npm clients are not installed; test/install does that")
	}
	for _, c := range []struct {
		name, script string
		unmaps       bool
	}{
		{"npm @achingbrain/nat-port-mapper", "npm/port-mapper.mjs", false},
		{"npm @silentbot1/nat-api", "npm/nat-api.mjs", true},
		{"npm nat-upnp", "npm/nat-upnp.cjs", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.name)
			child := r.spawn(exec.Command("node", c.script, r.host.Addr.String()))
			m := r.maps(1, 30*time.Second, upnp)[0]
			r.arrives(m, false)
			child.finish()
			if !c.unmaps {
				r.closeAll()
			}
			r.gone(m)
		})
	}
}
