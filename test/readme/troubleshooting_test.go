package readme

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTroubleshooting: the program says every sentence that docs/troubleshooting.md explains.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, dir := range []string{"cmd/portcullis", "config", "firewall", "internal", "pcp", "policy", "portmap", "ssdp"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			code.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	says := strings.NewReplacer(`\"`, `"`, "\"+\n", "").Replace(code.String())
	rows := 0
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(file(t, "docs/troubleshooting.md"), -1) {
		rows++
		for part := range strings.SplitSeq(row[1], "...") {
			if part = strings.TrimSpace(part); !strings.Contains(says, part) {
				t.Errorf("nothing says %q, of %q", part, row[1])
			}
		}
	}
	if rows < 30 {
		t.Errorf("%d sentences", rows)
	}
}
