package warden

import (
	"testing"
	"time"

	"portcullis/portmap"
)

// TestBells: a device that asks for more and more is told of no more than so much, and takes
// nothing from another; devices without number have a limit together, and take no memory.
func TestBells(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	device := func(i int) portmap.Device {
		return (portmap.Client{Interface: "lan0", MAC: portmap.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}).ID().Device()
	}
	b := newBells()
	count := func(n int, of func(int) portmap.Device) (told int) {
		for i := range n {
			if b.ring(of(i), now) {
				told++
			}
		}
		return told
	}
	greedy := func(int) portmap.Device { return device(1) }
	if told := count(1000, greedy); told != toldAtOnce {
		t.Errorf("one device is told of %d times", told)
	}
	if told := count(1, func(int) portmap.Device { return device(2) }); told != 1 {
		t.Error("another device pays for it")
	}
	for range 10 { // each told after another, as if it had slept
		now = now.Add(time.Minute)
		if told := count(1000, greedy); told != toldPerMinute {
			t.Errorf("one device is told of %d times in a minute", told)
		}
	}

	now = now.Add(time.Hour)
	if told := count(5000, device); told > toldOfAll || told < maxBells {
		t.Errorf("5000 devices are told of %d times at once", told)
	}
	if len(b.of) != maxBells {
		t.Errorf("%d devices are kept", len(b.of))
	}
	now = now.Add(quiet)
	if told := count(1, func(int) portmap.Device { return device(6000) }); told != 1 {
		t.Error("a device that comes when they are quiet is not told of")
	}
	if len(b.of) != 1 {
		t.Errorf("%d devices are kept when they are quiet", len(b.of))
	}
}
