package main

import (
	"os"
	"path/filepath"
	"testing"

	"portcullis/config"
)

// TestNoRun: where there is no /run the socket is in /var/run, unless others can write there or the
// owner has named another place.
func TestNoRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	usual, other, open := filepath.Join(dir, "run"), filepath.Join(dir, "var-run"), filepath.Join(dir, "tmp")
	for name, mode := range map[string]os.FileMode{other: 0o755, open: 0o777 | os.ModeSticky} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	standard := config.Default().Control.Socket
	for _, c := range []struct {
		is, want         config.Socket
		usual, otherwise string
	}{
		{standard, config.Socket(other + "/portcullis/control.sock"), usual, other},
		{standard, standard, usual, open},
		{standard, standard, usual, filepath.Join(dir, "nothing")},
		{standard, standard, other, other},
		{"/srv/sock", "/srv/sock", usual, other},
	} {
		if got := placedIn(c.is, c.usual, c.otherwise); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
