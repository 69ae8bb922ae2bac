package check

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUnitForbids: where systemd runs the daemon by the unit, that says where a lease file can be;
// who has a drop-in for another place knows.
func TestUnitForbids(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, step := range []struct {
		file, text string
		want       map[string]bool
	}{
		{"etc/none", "", map[string]bool{"/var/log": false}},
		{"usr/lib/systemd/system/portcullis.service", "", map[string]bool{"/var/log": false}}, // nobody reads it
		{"run/systemd/system/x", "", map[string]bool{"/var/log": true, "/tmp": true, "/run/portcullis": false, "/var/run/portcullis/x": false, "/run/portcullis2": true}},
		{"etc/systemd/system/portcullis.service.d/kea.conf", "[Service]\nSupplementaryGroups=_kea\n", map[string]bool{"/var/log": true}},
		{"etc/systemd/system/portcullis.service.d/old.conf", "[Service]\n#ReadWritePaths=/var/log\nReadWritePaths=\n", map[string]bool{"/var/log": true}},
		{
			"etc/systemd/system/portcullis.service.d/leases.conf", "[Service]\n ReadWritePaths = /srv/other -/var/log\n",
			map[string]bool{"/var/log": false, "/var/log/x": false, "/var/logs": true, "/var": true, "/srv": true},
		},
	} {
		at := filepath.Join(root, step.file)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		for dir, want := range step.want {
			if got := unitForbids(root, dir); got != want {
				t.Errorf("with %s: %s is forbidden: %v", step.file, dir, got)
			}
		}
	}
}
