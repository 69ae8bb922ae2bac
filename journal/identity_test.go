package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"portcullis/journal"
)

func TestIdentityIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	first, err := journal.LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	first.BootID = 1700000000
	if err := first.Save(dir); err != nil {
		t.Fatal(err)
	}
	second, err := journal.LoadIdentity(dir)
	if err != nil || second != first {
		t.Errorf("loaded %+v, %v; saved %+v", second, err, first)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
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
		id, err := journal.LoadIdentity(dir)
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
	id, err := journal.LoadIdentity(dir)
	if err != nil || id.UUID != uuid || id.BootID != 7 || len(id.Path) != 24 {
		t.Errorf("%+v, %v", id, err)
	}
	if other := journal.NewIdentity(); other.Path == id.Path || other.UUID == uuid {
		t.Errorf("two identities are alike: %+v", other)
	}
}
