package warden

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/config"
	"portcullis/internal/sandbox"
)

// TestSealedPaths: what holds the state directory and the socket may be written to, unless that
// is the machine's own.
func TestSealedPaths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state    config.Path
		socket   config.Socket
		programs bool
		want     sandbox.Paths
	}{
		{"/var/lib/portcullis", "/run/portcullis/control.sock", false,
			sandbox.Paths{Read: true, Write: []string{"/var/lib"}, Remove: []string{"/run/portcullis"}}},
		{"/var/lib/portcullis/", "/run/portcullis/control.sock", true,
			sandbox.Paths{Read: true, Write: []string{"/var/lib"}, Remove: []string{"/run/portcullis"}, Files: []string{"/dev/null"}}},
		{"/etc/portcullis", "/control.sock", false, sandbox.Paths{Read: true, Write: []string{"/etc/portcullis"}}},
		{"/state", "/etc//control.sock", false, sandbox.Paths{Read: true, Write: []string{"/state"}}},
	} {
		w := &Warden{}
		w.cfg.State.Dir, w.cfg.Control.Socket = c.state, c.socket
		if diff := cmp.Diff(&c.want, w.paths(c.programs)); diff != "" {
			t.Errorf("%s, %s: (-want +got)\n%s", c.state, c.socket, diff)
		}
	}
}
