package datagram_test

import (
	"net/netip"
	"testing"
	"time"

	"portcullis/datagram"
)

const (
	hostRate  = 20
	totalRate = 100
	maxHosts  = 256
)

func host(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// TestLimitsHost: E1, one host gets 20 a second after a burst of as many, and
// what it is refused costs nobody.
func TestLimitsHost(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	l := datagram.NewLimits(hostRate, hostRate, totalRate, maxHosts)
	granted := 0
	for i := range 50_000 { // 10 000 a second
		if l.Allow(now.Add(time.Duration(i)*100*time.Microsecond), host(1), 1) {
			granted++
		}
	}
	if most, least := 6*hostRate, 6*hostRate-2; granted > most || granted < least {
		t.Errorf("%d answers in 5 s, want %d to %d", granted, least, most)
	}
	if !l.Allow(now.Add(5*time.Second), host(2), 11) {
		t.Error("another host finds the common allowance empty")
	}
}

// TestLimitsTotal: E1, all hosts together get 100 a second, and forged sources
// do not fill the table for good.
func TestLimitsTotal(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	l := datagram.NewLimits(hostRate, hostRate, totalRate, maxHosts)
	granted, most := 0, 0
	for i := range 50_000 {
		if l.Allow(now.Add(time.Duration(i)*100*time.Microsecond), host(i), 1) {
			granted++
		}
		most = max(most, l.Hosts())
	}
	if want := 6 * totalRate; granted > want || granted < want-2 {
		t.Errorf("%d answers in 5 s, want some %d", granted, want)
	}
	if most > maxHosts {
		t.Errorf("%d hosts remembered, want at most %d", most, maxHosts)
	}
}

// TestLimitsBurst: more at once than a second yields.
func TestLimitsBurst(t *testing.T) {
	t.Parallel()
	l := datagram.NewLimits(hostRate, 40, totalRate, maxHosts)
	if now := time.Unix(1, 0); !l.Allow(now, host(1), 40) || l.Allow(now, host(1), 1) {
		t.Error("want 40 at once and not one more")
	}
}
