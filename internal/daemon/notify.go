package daemon

import (
	"log/slog"
	"net"
	"os"
)

// supervisor is who started the daemon and waits for it to be ready (sd_notify(3)); nil:
// nobody. It is found before the sandbox closes, in which no socket to it can be made.
type supervisor struct {
	log  *slog.Logger
	conn net.Conn
}

func findSupervisor(log *slog.Logger) *supervisor {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		log.Warn("sd_notify failed", "err", err)
		return nil
	}
	return &supervisor{log, conn}
}

// ready tells the supervisor, and forgets it.
func (s *supervisor) ready() {
	if s == nil {
		return
	}
	if _, err := s.conn.Write([]byte("READY=1")); err != nil {
		s.log.Warn("sd_notify failed", "err", err)
	}
	_ = s.conn.Close()
}
