package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/config"
	"portcullis/portmap"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "portcullis.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	t.Parallel()
	c, err := config.Load(write(t, "[policy]\ndefault = \"deny\"\n"))
	if err != nil || c.Policy.Default != portmap.Deny {
		t.Errorf("got %v, %v", c.Policy, err)
	}
}

func TestLoadMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none.toml")
	_, err := config.Load(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want fs.ErrNotExist with the path", err)
	}
}

func TestLoadDirectory(t *testing.T) {
	t.Parallel()
	if _, err := config.Load(t.TempDir()); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that is not fs.ErrNotExist", err)
	}
}

// TestLoadEmpty: what a lost power supply leaves must not pass for a file
// without rules.
func TestLoadEmpty(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"no byte": "", "blank": " \n\n\t\n"} {
		t.Run("C13/"+name, func(t *testing.T) {
			t.Parallel()
			path := write(t, text)
			_, err := config.Load(path)
			want := path + ":1: the file is empty; allowed: at least a comment, or no file at all for the defaults"
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	if _, err := config.Load(write(t, "# defaults, please\n")); err != nil {
		t.Errorf("a comment alone: %v", err)
	}
	if _, err := config.Load(os.DevNull); err != nil {
		t.Errorf("%s: %v", os.DevNull, err)
	}
}

func TestLoadLarge(t *testing.T) {
	t.Parallel()
	path := write(t, strings.Repeat("#\n", config.MaxFileSize))
	_, err := config.Load(path)
	if want := path + ":1: the file is too large; allowed: at most 1048576 bytes"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadBad(t *testing.T) {
	t.Parallel()
	path := write(t, "\n[log]\nlevel = 1\n")
	_, err := config.Load(path)
	var all config.Errors
	if !errors.As(err, &all) || all[0].File != path || all[0].Line != 3 {
		t.Errorf("got %v, want Errors for %s:3", err, path)
	}
}
