package clients

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestNPM: two control points from npm.
func TestNPM(t *testing.T) {
	need(t, "node")
	if _, err := os.Stat("npm/node_modules"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the npm clients are not installed; test/install does that")
		}
		t.Skip("the npm clients are not installed; test/install does that")
	}
	for _, c := range []struct{ name, script string }{
		{"npm @achingbrain/nat-port-mapper", "npm/port-mapper.mjs"},
		{"npm nat-upnp", "npm/nat-upnp.cjs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.name)
			child := r.spawn(exec.Command("node", c.script, r.host.Addr.String()))
			m := r.maps(1, 30*time.Second)[0]
			r.arrives(m, false)
			child.finish()
			r.gone(m)
		})
	}
}
