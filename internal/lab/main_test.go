package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"portcullis/internal/lab"
)

// inNamespace marks the copy of the test binary that is root of a user
// namespace.
const inNamespace = "LAB_TEST_IN_USER_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the lab needs root or unprivileged user namespaces:", err)
		os.Exit(1)
	}
}

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
