package ssdp

import "time"

// maxBootID is the greatest BOOTID.UPNP.ORG (UDA 1.1 section 1.2.2).
const maxBootID = 1<<31 - 1

// NextBootID returns the BOOTID.UPNP.ORG for a device that appears anew: the
// seconds since 1970, but always greater than previous, the last one used, even
// when the clock stands still or goes back (routers boot in 1970). The result is
// 1 to 2^31-1. Only when previous leaves no room above it (a damaged state file)
// does the count start again from the clock.
func NextBootID(previous uint32, now time.Time) uint32 {
	clock := uint32(max(now.Unix(), 1) & maxBootID) // 2038 is on its way
	if previous >= maxBootID {
		return max(clock%maxBootID, 1)
	}
	return max(clock, previous+1)
}
