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
	device := func(i int) portmap.Client {
		return portmap.Client{Interface: "lan0", MAC: portmap.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}
	}
	b := newBells()
	count := func(n int, of func(int) portmap.Client) (told int) {
		for i := range n {
			if c := of(i); b.ring(&c, now) {
				told++
			}
		}
		return told
	}
	greedy := func(int) portmap.Client { return device(1) }
	if told := count(1000, greedy); told != toldAtOnce {
		t.Errorf("one device is told of %d times", told)
	}
	if told := count(1, func(int) portmap.Client { return device(2) }); told != 1 {
		t.Error("another device pays for it")
	}
	for range 10 { // each told after another, as if it had slept
		now = now.Add(time.Minute)
		if told := count(1000, greedy); told != toldPerMinute {
			t.Errorf("one device is told of %d times in a minute", told)
		}
	}

	now = now.Add(time.Hour)
	if told := count(5000, device); told > toldOfLAN || told < maxBells {
		t.Errorf("5000 devices are told of %d times at once", told)
	}
	other := device(0)
	if other.Interface = "lan1"; !b.ring(&other, now) {
		t.Error("another LAN pays for it")
	}
	unheard := func(i int) portmap.Client {
		c := device(i)
		c.Interface, c.Unheard = "lan2", true
		return c
	}
	if told := count(5000, unheard); told != toldAtOnce {
		t.Errorf("devices that may be made up are told of %d times at once", told)
	}
	if len(b.of) != maxBells {
		t.Errorf("%d devices are kept", len(b.of))
	}
	now = now.Add(quiet)
	if told := count(1, func(int) portmap.Client { return device(6000) }); told != 1 {
		t.Error("a device that comes when they are quiet is not told of")
	}
	if len(b.of) != 1 {
		t.Errorf("%d devices are kept when they are quiet", len(b.of))
	}
	count(5000, unheard)
	heard := unheard(5001)
	if heard.Unheard = false; !b.ring(&heard, now) {
		t.Error("a device that has answered pays for those that are made up")
	}
}
