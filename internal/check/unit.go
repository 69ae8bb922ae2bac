package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"portcullis/config"
)

// unitName is the unit that the packages install.
const unitName = "portcullis.service"

// unitDirs are where systemd looks for units (systemd.unit(5)).
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// ofUnit are the directories in which the unit lets the daemon write files that others read:
// /tmp is one of its own.
var ofUnit = []string{"/run/portcullis", "/var/run/portcullis"}

// unitForbids reports whether the daemon of portcullis.service cannot write in a directory: systemd
// runs the machine, the unit is there, and no drop-in names paths of its own. All files are looked
// for below root.
func unitForbids(root, dir string) bool {
	if _, err := os.Stat(filepath.Join(root, "/run/systemd/system")); err != nil { // sd_booted(3)
		return false
	}
	there := false
	for _, at := range unitDirs {
		at = filepath.Join(root, at)
		if _, err := os.Stat(filepath.Join(at, unitName)); err == nil {
			there = true
		}
		dropins, _ := filepath.Glob(filepath.Join(at, unitName+".d", "*.conf")) // the pattern is a good one
		for _, file := range dropins {
			if text, err := os.ReadFile(file); err == nil && opens(string(text), dir) {
				return false
			}
		}
	}
	return there && !slices.ContainsFunc(ofUnit, func(own string) bool { return dir == own || strings.HasPrefix(dir, own+"/") })
}

// opens reports whether a drop-in lets the unit write in a directory: it names that, or one
// above it (systemd.exec(5)).
func opens(dropin, dir string) bool {
	for line := range strings.Lines(dropin) {
		key, paths, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.TrimSpace(key) != "ReadWritePaths" {
			continue
		}
		for path := range strings.FieldsSeq(paths) {
			path = filepath.Clean(strings.TrimLeft(strings.Trim(path, `"`), "-+"))
			if path == "/" || dir == path || strings.HasPrefix(dir, path+"/") {
				return true
			}
		}
	}
	return false
}

// LeaseFiles returns the warnings about lease files alone, of a configuration that is of no
// file yet.
func LeaseFiles(c config.Config) []Warning {
	j := &judge{config: c}
	for i, l := range leases(c) {
		j.leaseFile(leaseKeys[i], l)
	}
	return j.all
}
