package lab_test

import (
	"os"
	"testing"

	"portcullis/internal/lab"
	"portcullis/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

func network(t *testing.T, names ...string) *lab.Network {
	t.Helper()
	n, err := lab.New(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	if !n.HasIPv6() {
		if os.Getenv("CI") == "true" {
			t.Fatal("this kernel has no IPv6")
		}
		t.Skip("this kernel has no IPv6")
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
