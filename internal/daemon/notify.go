package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/pace"
	"portcullis/internal/slog"
)

// supervisor is who started the daemon and waits for it to be ready (sd_notify(3)); nil:
// nobody. It is found before the sandbox closes, in which no socket to it can be made.
type supervisor struct {
	log   *slog.Logger
	conn  net.Conn
	every time.Duration // half of the time in which it wants a sign of life; 0: it wants none
}

func findSupervisor(log *slog.Logger, waits net.Conn) *supervisor {
	if waits != nil {
		return &supervisor{log: log, conn: waits}
	}
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		log.Warn("sd_notify failed", "err", err)
		return nil
	}
	return &supervisor{log, conn, watchdog(log) / 2}
}

// watchdog returns the time in which the supervisor wants a sign of life of this process
// (sd_watchdog_enabled(3)), 0 where it wants none.
func watchdog(log *slog.Logger) time.Duration {
	text, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	if text == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > int64(time.Hour*24*365/time.Microsecond) {
		log.Warn("WATCHDOG_USEC is not a number of microseconds", "value", text)
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

func (s *supervisor) say(state string) {
	if s == nil {
		return
	}
	if _, err := s.conn.Write([]byte(state)); err != nil {
		s.log.Warn("sd_notify failed", "err", err)
	}
}

// ready says that requests are answered, again after reloading.
func (s *supervisor) ready() { s.say("READY=1") }

// reloading says that the configuration is read again.
func (s *supervisor) reloading() {
	var now unix.Timespec
	if s == nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return
	}
	s.say(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// stopping says that the end has begun.
func (s *supervisor) stopping() { s.say("STOPPING=1") }

// status says in a line what the daemon does, for people.
func (s *supervisor) status(line string) { s.say("STATUS=" + line) }

// keepAlive gives signs of life while alive returns no error, until ctx ends.
func (s *supervisor) keepAlive(ctx context.Context, alive func(context.Context) error) error {
	if s == nil || s.every <= 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		within, cancel := context.WithTimeout(ctx, s.every*7/8) // with the longest pause less than twice s.every
		if err := alive(within); err == nil {
			s.say("WATCHDOG=1")
		}
		cancel()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pace.Until(s.every)):
		}
	}
}
