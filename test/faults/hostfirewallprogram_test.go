package faults

import (
	"bytes"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	testrig "portcullis/test/rig"
)

// starting is how long another program may take until it runs, and to end. Those of
// Python and Docker take seconds on a machine that has other work.
const starting = time.Minute

// output runs a command on the gateway.
func output(r *testrig.Rig, cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.Gateway.Start(cmd); err != nil {
		return "", fmt.Errorf("%w (test/install brings what is missing)", err)
	}
	err := cmd.Wait()
	return out.String(), err
}

// prepare hides what a program writes from the machine: its files below /run, /etc and
// /opt are its own, and go with it.
const prepare = `set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
for dir in etc opt; do
	mkdir /run/.$dir /run/.$dir.work
	mount -t overlay -o lowerdir=/$dir,upperdir=/run/.$dir,workdir=/run/.$dir.work overlay /$dir
done
exec "$@"`

// apart is a command in namespaces of its own: its mounts end with it, and so do all
// processes that it has started.
func apart(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", prepare, "sh", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// background runs a command on the gateway until the test ends, or stop is called.
func background(t *testing.T, r *testrig.Rig, name string, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.Gateway.Start(cmd); err != nil {
		t.Fatalf("%v (test/install brings what is missing)", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // by our signal
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s:\n%s", name, &out)
		}
	})
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(starting):
			t.Errorf("%s does not end", name)
		}
	}
}
