package journal_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/journal"
	"portcullis/portmap"
)

// childDir makes this test program the child that is killed.
const childDir = "PORTCULLIS_JOURNAL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stdout, "failed", child(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child records for ever, saying before each record what it is about to do, and
// after it that it is done. Another goroutine syncs and compacts all the time.
func child(dir string) error {
	j, got, err := journal.Open(journal.Config{Dir: dir, Log: discard(), MaxMappings: 100})
	if err != nil {
		return err
	}
	go func() {
		for {
			j.Tick()
			_ = j.Compact()
		}
	}()
	w := &world{clock: newFakeClock()}
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	live, next := []uint64{}, uint64(1)
	for _, m := range got.Mappings {
		live, next = append(live, m.ID), m.ID+1
	}
	for {
		var changes []portmap.Change
		plan := ""
		for range 1 + r.IntN(3) {
			if i := r.IntN(40); i < len(live) {
				changes = append(changes, portmap.Change{Old: &portmap.Mapping{ID: live[i]}})
				plan += fmt.Sprintf(" end %d", live[i])
				live = append(live[:i], live[i+1:]...)
				continue
			}
			m := w.mapping(next)
			m.Created, m.Expires = time.Now(), time.Now().Add(time.Hour)
			changes, live = append(changes, portmap.Change{New: &m}), append(live, next)
			plan += fmt.Sprintf(" put %d", next)
			next++
		}
		fmt.Fprintln(os.Stdout, "try"+plan)
		if err := j.Record(context.Background(), changes); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "done"+plan)
	}
}

// TestKill: a process that records is killed at 50 random instants. Whatever it
// acknowledged is there; what it was about to do may be.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	acked := map[string]bool{} // by ID
	records, inFlight := 0, 0
	for range 50 {
		doubtful, n := killed(t, dir, acked)
		records += n
		j, got, err := journal.Open(journal.Config{Dir: dir, Log: discard(), MaxMappings: 100})
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 && !got.Whole {
			t.Error("not whole")
		}
		there := map[string]bool{}
		for _, m := range got.Mappings {
			id := fmt.Sprint(m.ID)
			there[id] = true
			if !acked[id] && !doubtful[id] {
				t.Errorf("mapping %s is there, which was ended or never was", id)
			}
		}
		for id := range acked {
			if !there[id] && !doubtful[id] {
				t.Errorf("mapping %s was acknowledged and is not there", id)
			}
		}
		if len(doubtful) > 0 {
			inFlight++
		}
		if t.Failed() {
			return
		}
		acked = there
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records, %d deaths within one", records, inFlight)
	if records < 500 {
		t.Errorf("only %d records", records)
	}
}

// killed runs a child for a moment and kills it. It brings acked up to date, and
// gives the IDs that it was busy with and how many records it made.
func killed(t *testing.T, dir string, acked map[string]bool) (doubtful map[string]bool, records int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	doubtful = map[string]bool{}
	var kill *time.Timer
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break // killed; half a line says nothing
		}
		if kill == nil { // it has begun
			kill = time.AfterFunc(time.Duration(rand.IntN(20000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		}
		words := strings.Fields(text)
		if words[0] == "failed" {
			t.Fatal(text)
		}
		clear(doubtful)
		for i := 1; i+1 < len(words); i += 2 {
			switch {
			case words[0] == "try":
				doubtful[words[i+1]] = true
			case words[i] == "put":
				acked[words[i+1]] = true
			default:
				delete(acked, words[i+1])
			}
		}
		if words[0] == "done" {
			records++
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("the child was not killed: %v", err)
	}
	return doubtful, records
}

// TestRealDiskFull is TestDiskFull on a small file system of its own.
func TestRealDiskFull(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	var j *journal.Journal
	var fill *os.File
	opened := make(chan error)
	go func() { // its thread dies with it, and the mount with that
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("journal", dir, "tmpfs", 0, "size=256k,mode=0700")
		}
		if err == nil {
			j, _, err = journal.Open(journal.Config{Dir: dir, Log: discard(), MaxMappings: 100})
		}
		if err == nil {
			fill, err = os.Create(filepath.Join(dir, "fill"))
		}
		opened <- err
	}()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	w := newWorld(t)
	soon := func(id uint64) []portmap.Mapping {
		m := w.mapping(id)
		m.Created, m.Expires = time.Now(), time.Now().Add(time.Hour)
		return []portmap.Mapping{m}
	}
	if err := write(j, soon(1), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(fill, strings.NewReader(strings.Repeat("x", 1<<20))); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filled: %v", err)
	}
	failed := false
	for id := uint64(2); id < 60 && !failed; id++ {
		err := write(j, soon(id), nil)
		failed = err != nil
		if failed && (!errors.Is(err, journal.ErrBehind) || !errors.Is(err, unix.ENOSPC)) {
			t.Fatal(err)
		}
	}
	if !failed {
		t.Fatal("never full")
	}
	if err := fill.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := write(j, soon(90), nil); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
