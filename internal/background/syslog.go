package background

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// devLog is where syslogd listens.
const devLog = "/dev/log"

// Of syslog(3).
const (
	failure = 3 // LOG_ERR

	facility = 3 << 3 // LOG_DAEMON
)

// priorityOf takes the priority off a line; one that has none is of a program that has failed.
func priorityOf(line string) (priority int, text string) {
	if len(line) > 3 && line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>' {
		return int(line[1] - '0'), line[3:]
	}
	return failure, line
}

// syslog sends lines to syslogd. It names the peer with each, so that one that is started
// again is reached.
type syslog struct {
	fd   int // -1: there is no socket
	to   *unix.SockaddrUnix
	name string
}

func newSyslog(name, path string) *syslog {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fd = -1
	}
	return &syslog{fd: fd, to: &unix.SockaddrUnix{Name: path}, name: name}
}

// send sends a line, or leaves it out where nobody listens or keeps up.
func (s *syslog) send(priority int, text string) {
	if s.fd < 0 {
		return
	}
	line := fmt.Sprintf("<%d>%s %s[%d]: %s", facility|priority, time.Now().Format(time.Stamp), s.name, os.Getpid(), strings.ToValidUTF8(text, "?"))
	_ = unix.Sendto(s.fd, []byte(line), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, s.to)
}
