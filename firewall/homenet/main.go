package homenet

import (
	"flag"
	"os"
	"testing"
)

// Main runs the tests of a backend, more at once than there are cores: they wait
// for the kernel, for programs and for silence, and compute little.
func Main(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
