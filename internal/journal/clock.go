package journal

import "time"

// Moment is one reading of every clock that a lease is kept by.
type Moment struct {
	// Now is what portmap counts by; its monotonic reading decides.
	Now time.Time
	// Boot is CLOCK_BOOTTIME: the time since the machine started, sleep
	// included. Nobody can set it.
	Boot time.Duration
	// Wall is the time of day, right or wrong.
	Wall time.Time
	// Synced: the kernel was told that Wall is right.
	Synced bool
}

// Clock is where a journal has the time from.
type Clock interface {
	// Moment reads all clocks at once.
	Moment() Moment
	// BootID returns the name of this run of the machine, "" when it is not known.
	// Two readings of Boot can be compared only when it is the same.
	BootID() string
}

// On disk all times are whole milliseconds: of the run (CLOCK_BOOTTIME), or of
// the day (since 1970).

// never is the end of a lease that has none.
const never = int64(1<<63 - 1)

// longest bounds every time on disk, and with it every lease: 100 years.
const longest = int64(100 * 365 * 24 * time.Hour / time.Millisecond)

func (m Moment) at() int64 { return m.Boot.Milliseconds() }

// ahead returns how far the clock of the day is ahead of the run's.
func (m Moment) ahead() int64 { return m.Wall.UnixMilli() - m.at() }

// ofRun returns where on the run's clock t is, rounded up, so that no lease is
// shortened.
func (m Moment) ofRun(t time.Time) int64 {
	const most = time.Duration(longest/2) * time.Millisecond
	d := min(max(t.Sub(m.Now), -most), most)
	return int64((m.Boot + d + time.Millisecond - 1).Truncate(time.Millisecond) / time.Millisecond)
}

// ofNow returns the time at a place on the run's clock, for portmap.
func (m Moment) ofNow(run int64) time.Time {
	return m.Now.Add(time.Duration(run)*time.Millisecond - m.Boot)
}
