package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/journal"
)

// opened opens the journal of a directory until the test ends.
func opened(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, _, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// TestIdentityIsKept: L16. What clients remember of the gateway is there after a restart.
func TestIdentityIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	j := opened(t, dir)
	first, err := j.Identity()
	if err != nil || j.HasIdentity() {
		t.Fatal(err)
	}
	first.BootID = 1700000000
	if err := j.SaveIdentity(first); err != nil || !j.HasIdentity() {
		t.Fatal(err)
	}
	second, err := j.Identity()
	if err != nil || second != first {
		t.Errorf("loaded %+v, %v; saved %+v", second, err, first)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("files: %v, %v", files, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "identity.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}

func TestIdentityDamaged(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", `{"uuid":"x"}`, `{"uuid":"../../etc/passwd","boot_id":1}`,
		`{"uuid":"00000000-0000-4000-8000-000000000000","boot_id":4294967295}`,
		`{"uuid":"00000000-0000-4000-8000-000000000000","path":"../x"}`,
		`{"uuid":"00000000-0000-4000-8000-000000000000","path":"0"}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := opened(t, dir).Identity()
		if !errors.Is(err, journal.ErrDamaged) || len(id.UUID) != 36 || len(id.Path) != 24 || id.BootID != 0 {
			t.Errorf("%q: %+v, %v", text, id, err)
		}
	}
}

// TestIdentityBeforePaths: what an earlier version wrote keeps its UUID.
func TestIdentityBeforePaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const uuid = "00000000-0000-4000-8000-000000000001"
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(`{"uuid":"`+uuid+`","boot_id":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := opened(t, dir).Identity()
	if err != nil || id.UUID != uuid || id.BootID != 7 || len(id.Path) != 24 {
		t.Errorf("%+v, %v", id, err)
	}
	if other := journal.NewIdentity(); other.Path == id.Path || other.UUID == uuid {
		t.Errorf("two identities are alike: %+v", other)
	}
}

// TestIdentityIsTrusted: an identity that others could have written, or that is not a
// file, is not taken, and one is not written where others could have put something.
func TestIdentityIsTrusted(t *testing.T) {
	t.Parallel()
	const planted = `{"uuid":"00000000-0000-4000-8000-000000000001","path":"00112233445566778899aabb","boot_id":7}`
	for name, spoil := range map[string]func(t *testing.T, dir, file string){
		"file for all":        func(t *testing.T, _, file string) { chmod(t, file, 0o666) },
		"file is a link":      func(t *testing.T, _, file string) { link(t, file) },
		"file is a FIFO":      func(t *testing.T, _, file string) { fifo(t, file) },
		"foreign file":        func(t *testing.T, _, file string) { chown(t, file) },
		"directory for all":   func(t *testing.T, dir, _ string) { chmod(t, dir, 0o777) },
		"directory is a link": func(t *testing.T, dir, _ string) { link(t, dir) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			j := opened(t, dir)
			file := filepath.Join(dir, "identity.json")
			if err := os.WriteFile(file, []byte(planted), 0o600); err != nil {
				t.Fatal(err)
			}
			if id, err := j.Identity(); err != nil || id.BootID != 7 {
				t.Fatalf("%+v, %v: the test shows nothing", id, err)
			}
			spoil(t, dir, file)
			if strings.HasPrefix(name, "directory") {
				j, _, err := openDir(dir)
				if !errors.Is(err, journal.ErrUnsafe) {
					t.Errorf("opened %v, %v", j, err)
				}
				return
			}
			id, err := j.Identity()
			if !errors.Is(err, journal.ErrUnsafe) || strings.Contains(planted, id.UUID) || strings.Contains(planted, id.Path) {
				t.Errorf("%+v, %v", id, err)
			}
			if err := j.SaveIdentity(id); err != nil { // in its place, not through it
				t.Error(err)
			}
			if again, err := j.Identity(); err != nil || again != id {
				t.Errorf("saved %+v, loaded %+v, %v", id, again, err)
			}
		})
	}
}
