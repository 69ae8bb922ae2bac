package warden

import (
	"errors"
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

// TestMissing: what is missing is shown a line each, with the role that lacks it, and what one
// process lacks is that it is two.
func TestMissing(t *testing.T) {
	t.Parallel()
	w := &Warden{notSplit: errors.New("the kernel is too old")}
	w.sandbox = w.shown(sandbox.State{Missing: []error{errors.New("Landlock: none"), errors.Join(errors.New("one"), errors.New("another"))}})
	own := []string{"Landlock: none", "one; another", "two processes: the kernel is too old"}
	if diff := cmp.Diff(own, w.sandbox.Missing); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	w.ShowFront(func() Front { return Front{Missing: []string{"Landlock: not here"}} })
	for range 2 { // each is asked anew
		s := w.sandbox
		w.showFront(&s)
		if diff := cmp.Diff(append(own[:len(own):len(own)], "front: Landlock: not here"), s.Missing); diff != "" || s.Front == nil {
			t.Errorf("with a front: (-want +got)\n%s", diff)
		}
	}
}
