package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"portcullis/lab"
)

var errStoryWrong = errors.New("the lab did not go as it must")

// inLab marks the process that runs in a user namespace of its own.
const inLab = "PORTCULLIS_LAB"

func runLab(ctx context.Context, e env, args []string) error {
	f := flags(e, "lab")
	keep := f.Bool("keep", false, "leave the network up afterwards, until Ctrl-C")
	asJSON := f.Bool("json", false, "print JSON")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if os.Geteuid() != 0 && os.Getenv(inLab) == "" {
		return asRoot(ctx, e, args)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return playLab(ctx, e, exe, *keep, *asJSON)
}

// asRoot runs the lab again as root of an unprivileged user namespace.
func asRoot(ctx context.Context, e env, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{"lab"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), inLab+"=1")
	cmd.Stdout, cmd.Stderr = e.out, e.err
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	switch err := cmd.Run(); {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the lab needs root, or a kernel that permits unprivileged user namespaces: %w", err)
	case err != nil:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return errStoryWrong // it has said why
		}
		return err
	}
	return nil
}

func playLab(ctx context.Context, e env, exe string, keep, asJSON bool) error {
	n, err := lab.New("console", "laptop", "server", "malware", "phone")
	if err != nil {
		return fmt.Errorf("%w; the lab needs root, or a kernel that permits unprivileged user namespaces", err)
	}
	defer n.Close()
	if err := n.OwnerFirewall(); err != nil {
		return err
	}
	d, err := n.StartDaemon(ctx, exe, "")
	if err != nil {
		return err
	}
	report := lab.NewReporter(e.out, asJSON)
	err = lab.Play(ctx, n, d, report.Step)
	if err != nil {
		err = errors.Join(err, d.Stop())
	}
	if err := errors.Join(err, report.Finish()); err != nil {
		return err
	}
	if keep && ctx.Err() == nil {
		if err := hold(ctx, e, n, exe); err != nil {
			return err
		}
	}
	if report.Wrong() > 0 {
		return fmt.Errorf("%w: %d steps went wrong", errStoryWrong, report.Wrong())
	}
	return nil
}

// hold leaves the network up, with a fresh daemon, until Ctrl-C.
func hold(ctx context.Context, e env, n *lab.Network, exe string) error {
	d, err := n.StartDaemon(ctx, exe, "")
	if err != nil {
		return err
	}
	fmt.Fprintf(e.err, "\nThe network stays up until Ctrl-C. To go there:\n")
	for _, h := range n.Hosts() {
		fmt.Fprintf(e.err, "  %-9s nsenter --net=%s\n", h.Name, h.Path())
	}
	fmt.Fprintf(e.err, "and to see what is open: portcullis list --config %s\n", d.Config)
	select {
	case <-ctx.Done():
	case <-d.Ended():
	}
	return d.Stop()
}
