package wall

import (
	"context"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/slog"
)

// TestUnread: a front that asks and reads no answer is not asked further. Its answers wait,
// no more of them than there may be, until the time for sending them is up.
func TestUnread(t *testing.T) {
	end, front := mute(t)
	server, err := NewServer(end, newDecider().config(slog.New(slog.DiscardHandler), nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	defer func() { stop(); _ = front.close(); <-ended }()
	underWay := func() int {
		server.mu.Lock()
		defer server.mu.Unlock()
		return len(server.underWay)
	}
	before, most := runtime.NumGoroutine(), 0
	raw, err := front.unix.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	unread := func() (n int) {
		if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	taken := func() bool { // the last request, and answered as far as it can be
		for begun := time.Now(); unread() > 0 || underWay() > 0; runtime.Gosched() {
			if time.Since(begun) > 300*time.Millisecond {
				return false
			}
		}
		return true
	}
	for n := uint32(1); n < 3000 && taken(); n++ {
		b := encode(t, Message{Number: n, Patience: time.Second, Body: &Own{asker.ID(), 0, 1}})
		_ = front.unix.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := front.unix.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
			break // nobody reads them any more
		} else if err != nil {
			t.Fatalf("request %d: %v", n, err)
		}
		most = max(most, runtime.NumGoroutine()-before)
	}
	if most > 3*MaxUnderWay {
		t.Errorf("%d answers wait", most)
	}
}
