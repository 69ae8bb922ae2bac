package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEarlySignals: a daemon that reads its configuration is not ended by what has it read that
// again, or in the place of miniupnpd by what its scripts send.
func TestEarlySignals(t *testing.T) {
	t.Parallel()
	for line, signals := range map[string][]syscall.Signal{
		"run --config FIFO":                    {syscall.SIGHUP},
		"miniupnpd -D --config FIFO":           {syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE},
		"miniupnpd --config FIFO -P /dev/null": {syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE},
	} {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", strings.Fields(strings.ReplaceAll(line, "FIFO", fifo))...)
		cmd.Args[0] = "portcullis"
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // when it reads
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range signals {
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.WriteString("[nonsense]\n"); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitRefused || !strings.Contains(said.String(), "nonsense") {
			t.Errorf("%s: %v\n%s", line, err, &said)
		}
	}
}

// TestSilentPipe: a configuration that nobody writes, which would keep a start of the machine
// waiting, and obeys no signal, is an error.
func TestSilentPipe(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"run --config PIPE", "miniupnpd -D --config PIPE", "miniupnpd -d -a lan0 -i wan0 -f PIPE", "check --config PIPE"} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			pipe := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", strings.Fields(strings.ReplaceAll(line, "PIPE", pipe))...)
			cmd.Args[0] = "portcullis"
			if said, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(said), pipe+" has not said all that it has within 5s") {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// TestEndIsKnown: a daemon in the place of miniupnpd that is to end before it has read its
// configuration does not start itself anew after that, which would know nothing of it.
func TestEndIsKnown(t *testing.T) {
	t.Parallel()
	// As for a program that is started by hand: the timers of its threads are precise.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 50_000, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pipe, pid := filepath.Join(dir, "pipe"), filepath.Join(dir, "pid")
	// It comes no further than to its pid file.
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Symlink("elsewhere", pid)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "miniupnpd", "-d", "-a", "lan0", "-i", "wan0", "-f", pipe, "-P", pid)
	cmd.Args[0] = "portcullis"
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // when it reads
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("port=5000\n"); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitRefused || !strings.Contains(said.String(), pid+": too many levels of symbolic links") {
		t.Errorf("%v\n%s", err, &said)
	}
}
