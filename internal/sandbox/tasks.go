package sandbox

import (
	"os"
	"path"
	"strconv"
	"strings"
)

// TaskLimit returns how many processes and threads the service may have together, as its
// control groups say, and the file that says so; "" where nothing bounds them, or it cannot
// be told.
func TaskLimit() (limit int, by string) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, ""
	}
	return taskLimit("/sys/fs/cgroup", string(groups))
}

// taskLimit reads it below a directory, for the lines of cgroups(7): those of version 2, and
// of the hierarchy of version 1 that counts processes. Each group above bounds it too.
func taskLimit(root, groups string) (limit int, by string) {
	for line := range strings.Lines(groups) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || part[1] != "" && part[1] != "pids" {
			continue
		}
		for group := path.Join("/", part[2]); ; group = path.Dir(group) {
			file := path.Join(root, part[1], group, "pids.max")
			text, _ := os.ReadFile(file) // of the uppermost there is none
			if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && (by == "" || n < limit) {
				limit, by = n, file
			}
			if group == "/" {
				break
			}
		}
	}
	return limit, by
}
