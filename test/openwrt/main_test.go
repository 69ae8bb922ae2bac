// Package openwrt runs the scripts of a router with OpenWrt under the shell that it has,
// busybox ash, and what they tell procd to run.
//
// OpenWrt itself cannot be had here. What stands in for it was written for these tests, and
// behaves as OpenWrt's own does: rc.common, procd.sh and functions.sh (testdata); uci, ubus,
// logger and ujail, which are this program under other names (standin_test.go); procd
// (procd_test.go).
package openwrt

import (
	"os"
	"path/filepath"
	"testing"

	testrig "portcullis/test/rig"
)

func TestMain(m *testing.M) {
	if run, is := standIns[filepath.Base(os.Args[0])]; is {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(testrig.Main(m))
}
