package datagram_test

import (
	"net/netip"
	"testing"
	"time"

	"portcullis/internal/datagram"
)

const (
	hostRate  = 20
	totalRate = 100
	most      = 256
)

// host is a machine of the LAN, known by its frames.
func host(n int) datagram.Account {
	return datagram.Account{Device: datagram.Device{Sender: machine(n)}, Class: datagram.Host}
}

func stranger(n int) datagram.Account {
	return datagram.Account{Device: datagram.Device{Sender: machine(n)}, Class: datagram.Stranger}
}

func routed(n int) datagram.Account {
	a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return datagram.Account{Device: datagram.Device{Sender: machine(1), Addr: a}, Class: datagram.Routed}
}

func machine(n int) datagram.Sender {
	return datagram.Sender{MAC: [6]byte{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}, Known: 6}
}

func limits() *datagram.Limits { return datagram.NewLimits(hostRate, hostRate, totalRate, most) }

var began = time.Unix(1_700_000_000, 0)

// flood asks 10 000 times a second for 5 s, and returns how many were served.
func flood(l *datagram.Limits, who func(int) datagram.Account) (granted, remembered int) {
	for i := range 50_000 {
		if l.Allow(began.Add(time.Duration(i)*100*time.Microsecond), who(i), 1) {
			granted++
		}
		remembered = max(remembered, l.Devices())
	}
	return granted, remembered
}

func only(a datagram.Account) func(int) datagram.Account {
	return func(int) datagram.Account { return a }
}

// TestLimitsHost: E1, one host gets 20 a second after a burst of as many, and
// what it is refused costs nobody.
func TestLimitsHost(t *testing.T) {
	t.Parallel()
	l := limits()
	granted, _ := flood(l, only(host(1)))
	if most, least := 6*hostRate, 6*hostRate-2; granted > most || granted < least {
		t.Errorf("%d answers in 5 s, want %d to %d", granted, least, most)
	}
	if !l.Allow(began.Add(5*time.Second), host(2), 11) {
		t.Error("another host finds the common allowance empty")
	}
}

// TestLimitsTotal: E1, all hosts together get 100 a second and the reserve, those
// behind a router and strangers a share of their own, and forged sources do not
// fill the table for good.
func TestLimitsTotal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		who  func(int) datagram.Account
		want int // a second
	}{
		"hosts": {host, totalRate + totalRate/4}, "routed hosts": {routed, totalRate / 2}, "strangers": {stranger, totalRate / 5},
	} {
		granted, remembered := flood(limits(), test.who)
		if want := 6 * test.want; granted > want || granted < want-3 {
			t.Errorf("%s: %d answers in 5 s, want some %d", name, granted, want)
		}
		if remembered > most {
			t.Errorf("%s: %d remembered, want at most %d", name, remembered, most)
		}
	}
}

// TestLimitsClasses: what strangers, or hosts behind a router, spend is not
// what hosts of the link have, and the other way round.
func TestLimitsClasses(t *testing.T) {
	t.Parallel()
	classes := []func(int) datagram.Account{host, routed, stranger}
	for i, flooder := range classes {
		for j, other := range classes {
			l := limits()
			flood(l, flooder)
			if i != j && !l.Allow(began.Add(5*time.Second), other(1<<20), 1) {
				t.Errorf("class %d is not served after a flood of class %d", j, i)
			}
		}
	}
}

// TestLimitsReserve: a host that has had nothing is served while others have
// spent the common budget; one that has had its part of it is not.
func TestLimitsReserve(t *testing.T) {
	t.Parallel()
	l := limits()
	for i := range 100 { // five hosts with a full burst each
		if !l.Allow(began, host(i/hostRate), 1) {
			t.Fatalf("request %d of the budget was refused", i)
		}
	}
	if l.Allow(began.Add(100*time.Millisecond), host(0), 11) {
		t.Error("who has had its part was served from the reserve")
	}
	for i := range 5 {
		if !l.Allow(began, host(100+i), 1) {
			t.Errorf("newcomer %d was refused", i)
		}
	}
}

// TestLimitsBurst: more at once than a second yields.
func TestLimitsBurst(t *testing.T) {
	t.Parallel()
	l := datagram.NewLimits(hostRate, 40, totalRate, most)
	if now := time.Unix(1, 0); !l.Allow(now, host(1), 40) || l.Allow(now, host(1), 1) {
		t.Error("want 40 at once and not one more")
	}
	l = datagram.NewLimits(hostRate, 40, totalRate, most)
	if !l.Allow(time.Unix(1, 0), stranger(1), 40) {
		t.Error("a stranger cannot have what is one answer")
	}
}
