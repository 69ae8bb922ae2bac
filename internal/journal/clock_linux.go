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

// synced asks the kernel whether somebody disciplines the clock. Where asking is
// forbidden (a sandbox without adjtimex) the answer is no.
func synced() bool {
	var t unix.Timex // modes 0: only reads
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
