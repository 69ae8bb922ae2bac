package warden

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/config"
	"portcullis/internal/netns/netnstest"
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

// TestSealedRun: where /run has what can make root of whoever writes there, a file directly in it
// opens none of it to the daemon, by whatever name it is called; a router's /run has nothing.
func TestSealedRun(t *testing.T) {
	t.Parallel()
	netnstest.NeedRoot(t)
	for _, system := range []string{"", "/run/systemd", "/run/udev"} {
		var got *sandbox.Paths
		err := withRun(system, func() error {
			if err := os.Symlink("/run", "/run/link"); err != nil {
				return err
			}
			w := &Warden{}
			w.cfg.State.Dir, w.cfg.Control.Socket = "/run/state", "/run/control.sock"
			w.cfg.Miniupnpd.LeaseFile, w.cfg.Miniupnpd.LeaseFile6 = "/run/link/leases", "/run/own/leases"
			got = w.paths(false)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := &sandbox.Paths{Read: true, Write: []string{"/run", "/run/link", "/run/own"}, Remove: []string{"/run"}}
		if system != "" {
			want = &sandbox.Paths{Read: true, Write: []string{"/run/state", "/run/own"}}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("with %q: (-want +got)\n%s", system, diff)
		}
	}
}

// withRun calls f where /run has only this directory, or none where it is "".
func withRun(system string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with us, and with it what is mounted
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("none", "/run", "tmpfs", 0, "")
		}
		if err == nil && system != "" {
			err = os.Mkdir(system, 0o755)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
