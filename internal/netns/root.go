package netns

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// AsRoot runs this program again with its arguments, as root of a user namespace of
// its own with a network of its own, and returns its exit code, -1 where a signal
// ended it. The error is that there can be no such thing. The end of ctx is a SIGTERM
// for it, the end of this process a SIGKILL.
func AsRoot(ctx context.Context) (code int, err error) {
	runtime.LockOSThread() // the child ends with the thread that started it
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		},
	})
	if err != nil {
		return 0, fmt.Errorf("this needs root, or a kernel that permits unprivileged user namespaces: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = child.Signal(syscall.SIGTERM) })() // which fails where it has ended
	end, err := child.Wait()
	if err != nil {
		return 0, err
	}
	return end.ExitCode(), nil
}
