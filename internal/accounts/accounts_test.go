package accounts

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestAsTheSystem: everybody whom os/user knows here has the same numbers.
func TestAsTheSystem(t *testing.T) {
	for _, path := range []string{passwd, groups} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(line, ":")
			if path == groups {
				want, err := user.LookupGroup(name)
				if gid, failed := Group(name); err == nil && (failed != nil || strconv.Itoa(int(gid)) != want.Gid) {
					t.Errorf("group %s: %d, %v", name, gid, failed)
				}
				continue
			}
			want, err := user.Lookup(name)
			if uid, gid, failed := User(name); err == nil && (failed != nil || strconv.Itoa(int(uid)) != want.Uid || strconv.Itoa(int(gid)) != want.Gid) {
				t.Errorf("user %s: %d %d, %v", name, uid, gid, failed)
			}
		}
	}
}

// TestLines: a name is a whole one, and a line that cannot be right says so.
func TestLines(t *testing.T) {
	dir := t.TempDir()
	oldPasswd, oldGroups := passwd, groups
	t.Cleanup(func() { passwd, groups = oldPasswd, oldGroups })
	passwd, groups = filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
	if _, _, err := User("root"); !errors.Is(err, ErrUnknown) {
		t.Errorf("of no file: %v", err)
	}
	text := "# a:x:1:1\nab:x:7:8::/:/bin/sh\n+nis:x:1:1\nshort:x\nhuge:x:4294967296:1\nminus:x:-1:1\nab:x:9:9\nlast:x:4294967295:6"
	for _, path := range []string{passwd, groups} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"ab": "", "last": "", "a": "user a: unknown", "abc": "user abc: unknown", "": "user : unknown", "+nis": "user +nis: unknown", "ab:x": "user ab:x: unknown",
		"short": "user short: its line has too few fields", "huge": `user huge: its number is "4294967296"`, "minus": `user minus: its number is "-1"`,
	} {
		uid, gid, err := User(name)
		if (err == nil) != (want == "") || err != nil && err.Error() != want || name == "ab" && (uid != 7 || gid != 8) || name == "last" && (uid != 1<<32-1 || gid != 6) {
			t.Errorf("%q: %d %d, %v", name, uid, gid, err)
		}
	}
	if gid, err := Group("ab"); err != nil || gid != 7 {
		t.Errorf("%d, %v", gid, err)
	}
	if _, err := Group("none"); err == nil || err.Error() != "group none: unknown" {
		t.Error(err)
	}
	passwd = dir
	if _, _, err := User("ab"); err == nil || errors.Is(err, ErrUnknown) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a folder: %v", err)
	}
}
