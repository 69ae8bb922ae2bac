package journal

import (
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// SystemClock is the machine's own clock.
type SystemClock struct{}

var _ Clock = SystemClock{}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

var bootIDForm = regexp.MustCompile(`^[0-9a-f-]{36}$`)

// BootID implements Clock. It is "" where /proc does not show it.
func (SystemClock) BootID() string {
	data, err := os.ReadFile(bootIDFile)
	if id := strings.TrimSpace(string(data)); err == nil && bootIDForm.MatchString(id) {
		return id
	}
	return ""
}

// Moment implements Clock. The two clocks are read again when something came
// between them, so that they belong together.
func (SystemClock) Moment() Moment {
	var m Moment
	for range 4 {
		m.Now = time.Now()
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			continue // it is in every kernel since 2.6.39
		}
		m.Boot = time.Duration(ts.Nano())
		if time.Since(m.Now) < time.Millisecond {
			break
		}
	}
	m.Wall = m.Now.Round(0)
	m.Synced = synced()
	return m
}

// timesyncd is what systemd-timesyncd leaves where it has set the clock since the boot.
const timesyncd = "/run/systemd/timesync/synchronized"

// synced asks the kernel whether somebody disciplines the clock. A service manager that
// forbids to set the clock forbids that as well (systemd's ProtectClock=): then the word of
// its own client counts.
func synced() bool {
	var t unix.Timex // modes 0: only reads
	state, err := unix.Adjtimex(&t)
	if err == unix.EPERM {
		_, err := os.Lstat(timesyncd)
		return err == nil
	}
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
