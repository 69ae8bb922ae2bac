package daemon

import (
	"strings"
	"testing"

	"portcullis/config"
)

// TestFewTasks: who may have too few processes and threads is told before the runtime ends.
func TestFewTasks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode  config.SandboxMode
		limit int
		by    string
		warns bool
	}{
		{config.SandboxSplit, 0, "", false},
		{config.SandboxSplit, 2, "/sys/fs/cgroup/x/pids.max", true},
		{config.SandboxSplit, 47, "/sys/fs/cgroup/x/pids.max", true},
		{config.SandboxSplit, 48, "/sys/fs/cgroup/x/pids.max", false},
		{config.SandboxSingle, 19, "/sys/fs/cgroup/x/pids.max", true},
		{config.SandboxSingle, 47, "/sys/fs/cgroup/x/pids.max", false},
	} {
		if few := fewTasks(c.mode, c.limit, c.by); (few != "") != c.warns || c.warns && !strings.Contains(few, "x/pids.max allows") {
			t.Errorf("%+v: %q", c, few)
		}
	}
}
