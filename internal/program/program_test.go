package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shell runs a script, which stands for any program.
func shell(ctx context.Context, stdin, script string) (Output, error) {
	return Run(ctx, stdin, "sh", "-c", script)
}

// TestRun: what goes in comes out, however much, and what is said of a failure is how it was.
func TestRun(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a line of rules\n", 1<<16) // more than a pipe holds
	for _, c := range []struct{ stdin, script, out, complaint, err string }{
		{"", "true", "", "", ""},
		{"", "cat", "", "", ""},
		{long, "cat", long, "", ""},
		{long, "cat >&2; echo x", "x\n", long, ""},
		{long, "exec <&-; echo unread", "unread\n", "", ""},
		{"", "echo some; echo wrong >&2; exit 3", "some\n", "wrong\n", "exit status 3"},
		{"", "kill -9 $$", "", "", "signal: killed"},
	} {
		said, err := shell(t.Context(), c.stdin, c.script)
		if string(said.Out) != c.out || string(said.Complaint) != c.complaint || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: %v, %d octets, %.100q", c.script, err, len(said.Out), said.Complaint)
		}
	}
}

// TestRunEnds: a program ends with its caller's context, and is not begun behind it.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	began, begin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer began.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = began.Read(make([]byte, 1))
		cancel()
	}()
	if _, err := shell(ctx, "", fmt.Sprintf("echo > /proc/%d/fd/%d; exec sleep 600", os.Getpid(), begin.Fd())); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_ = begin.Close()
	if _, err := shell(ctx, "", "true"); !errors.Is(err, context.Canceled) {
		t.Errorf("begun behind the end: %v", err)
	}
}

// TestTooMuch: what a program says without end is read to its end, and not kept.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 100<<10)
	if kept, err := read(strings.NewReader(text), len(text)); err != nil || string(kept) != text {
		t.Errorf("%v, %d octets", err, len(kept))
	}
	from := strings.NewReader(text)
	if kept, err := read(from, len(text)-1); !errors.Is(err, ErrTooMuch) || len(kept) >= len(text) || from.Len() != 0 {
		t.Errorf("%v, %d octets, %d unread", err, len(kept), from.Len())
	}
}

// TestLongComplaint: a program that complains of more than anybody reads has not failed.
func TestLongComplaint(t *testing.T) {
	t.Parallel()
	said, err := shell(t.Context(), "", fmt.Sprintf("head -c %d /dev/zero >&2; echo done", maxOutput+1))
	if err != nil || string(said.Out) != "done\n" || len(said.Complaint) > maxOutput {
		t.Errorf("%v, said %q and %d octets of complaint", err, said.Out, len(said.Complaint))
	}
}

// TestFind: a program is one that can be run, in a folder of PATH that does not depend on where we
// are.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"one": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("PATH", "::.:/nowhere:"+dir)
	for name, want := range map[string]error{"one": nil, "text": ErrNotFound, "folder": ErrNotFound, "none": ErrNotFound, "/nowhere/none": ErrNotFound, dir + "/text": fs.ErrPermission} {
		path, err := Find(name)
		if !errors.Is(err, want) || want == nil && path != filepath.Join(dir, name) {
			t.Errorf("%s: %q, %v", name, path, err)
		}
	}
	t.Setenv("PATH", "::.")
	if path, err := Find("one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("found where we are: %q, %v", path, err)
	}
	if _, err := Run(t.Context(), "", "none"); !errors.Is(err, ErrNotFound) || err.Error() != `"none": executable file not found in $PATH` {
		t.Errorf("%v", err)
	}
}
