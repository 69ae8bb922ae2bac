package pace

import "time"

// Minute is the period of what is looked at though nothing was told, or to be mended.
const Minute = time.Minute

// Until returns how long it is from now to the next whole multiple of a period, which must
// be positive. One that is all but over is not worth another look: a clock that is being
// set right makes a timer end a little early. A clock that is set meanwhile moves the
// moments, and never makes the time longer than a period and a sixteenth.
func Until(period time.Duration) time.Duration {
	d := period - time.Duration(time.Now().UnixNano())%period
	if d > period { // before 1970
		d -= period
	}
	if d < period/16 {
		d += period
	}
	return d
}
