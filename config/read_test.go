package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/config"
)

// TestPipe: what is written into a pipe is read whole, whoever comes first; nobody waits for
// ever for what is not written.
func TestPipe(t *testing.T) {
	t.Parallel()
	pipe := func() string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "pipe")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	nobody, silent, whole := pipe(), pipe(), pipe()
	w, err := os.OpenFile(silent, os.O_RDWR, 0) // which does not wait
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("[policy]\n"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{nobody, silent} {
		if _, _, err := config.ReadWithin(path, 100, time.Millisecond); err == nil || !strings.Contains(err.Error(), path+" has not said all that it has within 1ms") {
			t.Errorf("%v", err)
		}
	}
	type read struct {
		text string
		err  error
	}
	done := make(chan read, 1)
	go func() {
		data, _, err := config.ReadWithin(whole, 100, time.Hour)
		done <- read{string(data), err}
	}()
	to, err := os.OpenFile(whole, os.O_WRONLY, 0) // when it is read
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"one\n", "two\n"} {
		if _, err := to.WriteString(part); err != nil {
			t.Error(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Error(err)
	}
	if got := <-done; got.err != nil || got.text != "one\ntwo\n" {
		t.Errorf("%q, %v", got.text, got.err)
	}
	if data, mode, err := config.ReadFile(os.DevNull, 100); err != nil || len(data) > 0 || mode.IsRegular() {
		t.Errorf("%q, %v, %v", data, mode, err)
	}
	if data, mode, err := config.ReadFile(write(t, "too long"), 3); err != nil || string(data) != "too " || !mode.IsRegular() {
		t.Errorf("%q, %v, %v", data, mode, err)
	}
}
