package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTaskLimit: the least of all groups that the service is in counts, in either version of
// control groups.
func TestTaskLimit(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for file, text := range map[string]string{
		"system.slice/portcullis.service/pids.max": "max\n",
		"system.slice/pids.max":                    "40\n",
		"pids.max":                                 "500\n",
		"pids/box/inner/pids.max":                  "20\n",
		"pids/box/pids.max":                        "30\n",
		"pids/garbled/pids.max":                    "x",
	} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for groups, want := range map[string]struct {
		limit int
		by    string
	}{
		"0::/system.slice/portcullis.service\n":      {40, "/system.slice/pids.max"},
		"0::/\n":                                     {500, "/pids.max"},
		"8:pids:/box/inner\n7:memory:/x\n0::/none\n": {20, "/pids/box/inner/pids.max"},
		"8:pids:/box\n":                              {30, "/pids/box/pids.max"},
		"8:pids:/garbled\n":                          {0, ""},
		"8:pids:/../../box\n":                        {30, "/pids/box/pids.max"},
		"nonsense\n":                                 {0, ""},
		"":                                           {0, ""},
	} {
		limit, by := taskLimit(root, groups)
		if want.by != "" {
			want.by = root + want.by
		}
		if limit != want.limit || by != want.by {
			t.Errorf("%q: %d by %q, want %+v", groups, limit, by, want)
		}
	}
}
