package gena

import (
	"strings"
	"time"
)

// parseTimeout reads a TIMEOUT header, "Second-N". Anything else, the retired
// "Second-infinite" among it, reports false and counts as no header at all (UDA
// 2.0 section 4.1.2). N has no upper end here: what does not fit is the longest
// Duration, and the caller shortens it.
func parseTimeout(header string) (time.Duration, bool) {
	const prefix = "second-"
	if len(header) <= len(prefix) || !strings.EqualFold(header[:len(prefix)], prefix) {
		return 0, false
	}
	const most = int64(1<<63-1) / int64(time.Second)
	var n int64
	for _, c := range []byte(header[len(prefix):]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + int64(c-'0'); n > most {
			n = most // stays below 2^63 when the next digit comes
		}
	}
	return time.Duration(n) * time.Second, true
}

// grant returns the duration of a subscription whose client sent this TIMEOUT:
// what it asked for, but within [least, most].
func grant(header []string, least, most time.Duration) time.Duration {
	if len(header) != 1 {
		return least // none, or two that may differ: no wish was stated
	}
	asked, ok := parseTimeout(header[0])
	if !ok {
		return least
	}
	return min(max(asked, least), most)
}
