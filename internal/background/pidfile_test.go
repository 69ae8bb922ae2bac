package background

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPidFile: a pid file is a short file of our own; nothing that another user may have put in
// its place is waited for, read, written or made empty.
func TestPidFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("other"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("other", at("link")), os.Symlink("nothing", at("dangling")), os.Link(at("other"), at("second")), unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "dangling", "second", "fifo", "dir"} {
		if pid, err := ReadPid(at(name)); err == nil {
			t.Errorf("%s: %d is read", name, pid)
		}
		if f, err := WritePid(at(name)); err == nil {
			t.Errorf("%s: is written", name)
			_ = f.Close()
		}
	}
	if _, err := os.Lstat(at("nothing")); text(t, at("other")) != "1\n" || err == nil {
		t.Errorf("what a link leads to is %q, %v", text(t, at("other")), err)
	}
	for is, want := range map[string]int{"": 0, "x": 0, "-1": 0, "0": 0, "1\n": 1, " 99 \n": 99, strings.Repeat(" ", maxPid) + "7": 0, "7" + strings.Repeat(" ", maxPid): 0} {
		if err := os.WriteFile(at("pid"), []byte(is), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid, err := ReadPid(at("pid")); pid != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", is, pid, err)
		}
		if o := Running(at("pid")); o != nil {
			t.Errorf("%q: process %d runs this", is, o.Pid)
		}
	}
	f, err := WritePid(at("pid"))
	if err != nil || f.Close() != nil || text(t, at("pid")) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("%v, written is %q", err, text(t, at("pid")))
	}
	if o := Running(at("pid")); o != nil {
		t.Errorf("this process is process %d", o.Pid)
	}
	removePid(at("pid"))
	removePid(at("other"))
	if _, err := os.Stat(at("pid")); err == nil || text(t, at("other")) != "1\n" {
		t.Error("what is removed is not this process's file, or more")
	}
}

// TestRemovePid: what has another process in it, or has become another file's name, stays.
func TestRemovePid(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(name string) error{
		"written by another": func(name string) error { return os.WriteFile(name, []byte("1\n"), 0o600) },
		"replaced": func(name string) error {
			return errors.Join(os.Remove(name), os.WriteFile(name, []byte("1\n"), 0o600))
		},
		"ours": nil,
	} {
		name := filepath.Join(t.TempDir(), "pid")
		f, err := WritePid(name)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			err = change(name)
		}
		err = errors.Join(err, RemovePid(f))
		_, missing := os.Stat(name)
		if err != nil || (missing == nil) != (change != nil) || change != nil && text(t, name) != "1\n" {
			t.Errorf("%s: %v, %v", what, err, missing)
		}
	}
}

// TestPidFileOfOthers: one of another user's, who may have put any process there, is none.
func TestPidFileOfOthers(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(name, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 65534, -1); err != nil {
		t.Fatal(err)
	}
	_, err := ReadPid(name)
	_, failed := WritePid(name)
	if err == nil || failed == nil || !strings.Contains(failed.Error(), "it belongs to another user (65534)") || text(t, name) != "1\n" {
		t.Errorf("%v, %v; it is %q", err, failed, text(t, name))
	}
}

// TestRunning: another process of this program is found by its file, and its end is waited for.
func TestRunning(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "pid")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", "reads")
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(fmt.Sprintln(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	var o *Other
	eventually(t, "it runs", func() bool { o = Running(name); return o != nil }) // between fork and execve it is none
	defer o.Close()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if o.Ends(ctx, time.Hour) || o.Ends(t.Context(), 0) {
		t.Error("it has ended, and runs")
	}
	ended := make(chan bool)
	go func() { ended <- o.Ends(t.Context(), time.Hour) }()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !<-ended {
		t.Error("its end is not seen")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if o := Running(name); o != nil {
		t.Errorf("process %d still runs", o.Pid)
	}
}
