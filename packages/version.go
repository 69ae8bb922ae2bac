package main

import (
	"fmt"
	"regexp"
)

// version is that of the program as each kind of package writes it. The order of versions is
// the same in all of them: what comes before a release is older than it.
type version struct {
	number string // X.Y.Z
	before string // of a version before the release: "dev", "rc1"; "" for a release
}

var (
	versions = regexp.MustCompile(`^(\d+\.\d+\.\d+)(?:-(dev|alpha|beta|pre|rc)(\d*))?$`)
	// apk knows these four, and no other word.
	apkWords = map[string]string{"dev": "alpha", "alpha": "alpha", "beta": "beta", "pre": "pre", "rc": "rc"}
)

// parseVersion reads X.Y.Z or X.Y.Z-rc1.
func parseVersion(text string) (v version, apk string, err error) {
	m := versions.FindStringSubmatch(text)
	if m == nil {
		return v, "", fmt.Errorf("%q is no version; write X.Y.Z, or X.Y.Z-dev, -alpha, -beta, -pre or -rc with a number", text)
	}
	if m[2] != "" {
		apk = apkWords[m[2]] + m[3]
	}
	return version{m[1], m[2] + m[3]}, apk, nil
}
